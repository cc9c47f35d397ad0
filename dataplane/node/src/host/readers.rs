//! Whoever asks a process for the cluster map whose controllers are outside the data plane: the host with the socket answers
//! with the newest map that the process has, and again when there is a newer one.
//!
//! So a client needs no controller, and one that starts while there is none finds the cluster as it was last known.

use ionian_wire::frame::{Body, DirectoryAnswer, DirectoryRequest, MESSAGE_HEADER_BYTES, encode};

use super::Host;
use super::relay::Route;

/// A session that wants the map.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    /// The request that waits for an answer.
    waiting: Option<u64>,
    /// The version that it knows, once it has asked.
    known: Option<u64>,
}

impl Reader {
    /// Whether it is to be told of this version.
    fn is_due(self, version: u64) -> bool {
        self.waiting.is_some() || self.known.is_some_and(|known| known != version)
    }
}

impl Host {
    /// Takes a request for the map. `false` when the session is not one of those that the host answers itself.
    pub(super) fn wants_map(&mut self, session: u32, request: &DirectoryRequest) -> bool {
        let route = self.routes.get_mut(session as usize);
        let Some(Some(Route::Map(reader))) = route else {
            return false;
        };
        reader.waiting = Some(request.request);
        reader.known = Some(request.known);
        self.readers_due = true;
        true
    }

    /// Answers those who want the map, as far as their sessions have room. Looks at them only when somebody has asked, or
    /// the map has changed.
    #[inline]
    pub(super) fn poll_readers(&mut self) -> usize {
        let version = self.own.shared.map_version();
        if !self.readers_due && version == self.readers_told {
            return 0;
        }
        self.tell_readers(version)
    }

    #[cold]
    fn tell_readers(&mut self, version: u64) -> usize {
        (self.readers_due, self.readers_told) = (false, version);
        let Self {
            routes, udp, own, ..
        } = self;
        let Some(udp) = udp else { return 0 };
        let mut bytes: Option<Vec<u8>> = None;
        let mut told = 0;
        for (session, route) in routes.iter_mut().enumerate() {
            let Some(Route::Map(reader)) = route else {
                continue;
            };
            if !reader.is_due(version) {
                continue;
            }
            let session = session as u32;
            // Version 0 is what the specification makes of the cluster, which nobody knows by that number.
            let news = reader.known != Some(version) || version == 0;
            let map = bytes.get_or_insert_with(|| own.shared.map().to_bytes().unwrap_or_default());
            let tail: &[u8] = if news { map } else { &[] };
            let answer = DirectoryAnswer {
                request: reader.waiting.unwrap_or(0),
                version,
            };
            let len = MESSAGE_HEADER_BYTES + DirectoryAnswer::LEN + tail.len();
            let mut message = vec![0; len];
            let fits = udp.room(session) >= len && encode(&mut message, &answer, &[tail]).is_ok();
            if fits && udp.send(session, &message, &[]) {
                (reader.waiting, reader.known) = (None, Some(version));
                told += 1;
            } else {
                // Room comes back by a datagram, and then this is looked at again.
                self.readers_due = true;
            }
        }
        told
    }
}
