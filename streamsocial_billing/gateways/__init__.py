"""Payment gateways behind one protocol (base.py); what is said to them: `domain.gateway_calls`."""
