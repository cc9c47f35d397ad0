//! Waking the reactor at the other end of a queue between two reactors.

/// Ends the sleep of a reactor. Cheap enough to call for every wake-up that a queue says is needed, not for every message.
pub trait Wake {
    /// Makes the reactor's sleep end soon, or its next one end at once.
    fn wake(&self);
}

/// Wakes nobody: for peers that never sleep, and for both ends on one reactor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}
