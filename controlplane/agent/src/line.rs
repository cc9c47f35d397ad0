//! The line of one place: its attachment to the controllers, and the ring to its machine.

use std::sync::Arc;

use ionian_control_client::{Attachment, Bytes, Client, Incoming, SendError};
use ionian_node::{ControllerEnd, ControllerSeam, Place};

use crate::bell::Bell;

/// Messages carried in one look, each way: others have their turn then.
const MESSAGES_MAX: usize = 64;

/// A place's line.
#[derive(Debug)]
pub(crate) struct Line {
    place: Place,
    attachment: Attachment,
    /// What a connection begins with.
    hello: Bytes,
    /// It has not been said over this one.
    unsaid: bool,
    /// The connection to a leader, while there is one.
    connection: Option<u64>,
    /// The ring that goes with it.
    end: Option<ControllerEnd>,
    /// What the controllers said and the ring had no room for.
    held: Option<Bytes>,
    /// The controllers take nothing now; they ring when they do.
    blocked: bool,
}

impl Line {
    pub(crate) fn new(place: Place, client: &Client, bell: &Bell, hello: Bytes) -> Self {
        Self {
            place,
            attachment: attach(client, bell),
            hello,
            unsaid: false,
            connection: None,
            end: None,
            held: None,
            blocked: false,
        }
    }

    /// Whether a leader is there and the place has no ring to it.
    pub(crate) const fn wants_ring(&self) -> bool {
        self.connection.is_some() && self.end.is_none()
    }

    /// Carries what there is, both ways. Whether there was something.
    pub(crate) fn carry(&mut self, client: &Client, seam: &ControllerSeam, bell: &Bell) -> bool {
        let mut worked = self.hear();
        if self.wants_ring() {
            self.end = seam.link(self.place, bell.ringer());
            worked |= self.end.is_some();
        }
        worked |= self.say(client, bell);
        worked
    }

    /// From the controllers to the place.
    fn hear(&mut self) -> bool {
        for count in 0..MESSAGES_MAX {
            if let Some(bytes) = self.held.take()
                && !self.deliver(&bytes)
            {
                self.held = Some(bytes);
                return count > 0;
            }
            // Without its ring the place hears nothing; what waits stays with the controllers.
            if self.wants_ring() {
                return count > 0;
            }
            match self.attachment.try_recv() {
                Some(Incoming::Opened { connection, .. }) => {
                    self.end_connection();
                    self.connection = Some(connection);
                    self.unsaid = true;
                }
                Some(Incoming::Frame { connection, bytes }) => {
                    self.held = (self.connection == Some(connection)).then_some(bytes);
                }
                Some(Incoming::Closed { connection, .. }) => {
                    if self.connection == Some(connection) {
                        self.end_connection();
                    }
                }
                None => return count > 0,
            }
        }
        true
    }

    /// Whether the place has taken a message, or is gone.
    fn deliver(&mut self, bytes: &Bytes) -> bool {
        match &mut self.end {
            Some(end) => end.send(bytes) || end.is_closed(),
            None => true,
        }
    }

    /// From the place to the controllers.
    fn say(&mut self, client: &Client, bell: &Bell) -> bool {
        self.blocked = false;
        let (Some(connection), Some(end)) = (self.connection, &mut self.end) else {
            return false;
        };
        let mut count = 0;
        if self.unsaid {
            match self.attachment.try_send(connection, self.hello.clone()) {
                Ok(()) => (self.unsaid, count) = (false, 1),
                Err(SendError::Full) => {
                    self.blocked = true;
                    return false;
                }
                Err(_) => {
                    self.end_connection();
                    return true;
                }
            }
        }
        while count < MESSAGES_MAX
            && let Some(message) = end.peek()
        {
            match self
                .attachment
                .try_send(connection, Bytes::copy_from_slice(message))
            {
                Ok(()) => end.release(),
                Err(SendError::Full) => {
                    self.blocked = true;
                    return count > 0;
                }
                // The leader is gone, or will not hear what is too large from any place.
                Err(_) => {
                    self.end_connection();
                    return true;
                }
            }
            count += 1;
        }
        if count == 0 && end.is_closed() {
            // The place has given the connection up. The leader is to know: what comes next is another one.
            self.end_connection();
            self.attachment = attach(client, bell);
            return true;
        }
        count > 0
    }

    fn end_connection(&mut self) {
        self.connection = None;
        self.end = None;
        self.held = None;
        self.blocked = false;
    }

    /// Has the ring call when something comes. `false` when there is something now.
    pub(crate) fn arm(&mut self) -> bool {
        // A place whose messages the controllers do not take need not call.
        self.blocked || self.end.as_mut().is_none_or(ControllerEnd::arm)
    }

    pub(crate) fn disarm(&mut self) {
        if let Some(end) = &mut self.end {
            end.disarm();
        }
    }
}

pub(crate) fn attach(client: &Client, bell: &Bell) -> Attachment {
    client.attach(Arc::new(bell.ringer()))
}
