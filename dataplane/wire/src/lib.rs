//! Frames and records on the wire and on disk: checked views, values, CRC-32C, versions.
