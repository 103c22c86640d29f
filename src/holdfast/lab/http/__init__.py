"""A small threaded HTTP/1.1 server that behaves like a pool's, oddities included."""

from holdfast.lab.http import pages
from holdfast.lab.http.connection import Connection, Disconnected
from holdfast.lab.http.request import BadRequest, Request, parse_head
from holdfast.lab.http.server import HttpServer, Listener

__all__ = ["BadRequest", "Connection", "Disconnected", "HttpServer", "Listener", "Request", "pages", "parse_head"]
