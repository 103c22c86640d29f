"""Every decoder against bytes that nobody wrote: only typed errors come out, in bounded time and memory."""
