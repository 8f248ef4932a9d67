"""The same job on our worker and on its peers, side by side: what `make bench` runs."""
