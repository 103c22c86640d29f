"""Object stores: one contract, several implementations, wrappers around them."""
