"""What gateways tell by webhook: checked, mapped, appended to `gateway-events`."""
