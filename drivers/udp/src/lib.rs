//! UDP packet device: batched datagrams over kernel sockets.
