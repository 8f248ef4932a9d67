"""One worker program for each guarantee; none of the weaker ones is a setting of the product."""
