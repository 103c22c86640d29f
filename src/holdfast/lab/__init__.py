"""The lab pool: a simulated pool that speaks the real protocols on real sockets."""
