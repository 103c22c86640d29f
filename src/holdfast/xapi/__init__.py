"""The pool client: control through XAPI, bulk data over HTTP and NBD, the sources of change."""
