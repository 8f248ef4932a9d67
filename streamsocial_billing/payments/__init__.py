"""What is done with a payment: charge, refund, retry, what gateways report, retention."""
