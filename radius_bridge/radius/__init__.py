"""The wire: RADIUS accounting packets (RFC 2865, RFC 2866) over UDP."""
