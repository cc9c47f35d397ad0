//! What a reactor runs, and how pollers are put together.

use std::os::fd::RawFd;

use ionian_driver_api::Time;

/// Something that is polled: a role, a driver, a mailbox, or several of them. Calls never block and return soon.
pub trait Poller {
    /// Does what there is to do, within a budget of its own, and returns how much that was; 0 if nothing.
    fn poll(&mut self, now: Time) -> usize;

    /// When it wants to be polled even if nothing happens. Asked when there was no work.
    fn next_deadline(&self) -> Option<Time>;

    /// Arms its wake-ups, then looks for work once more. `false` if there is some: then nothing stays armed, and the
    /// reactor does not sleep.
    fn try_sleep(&mut self) -> bool;

    /// Takes armed wake-ups back: the reactor woke, or somebody else refused to sleep. Only after a `try_sleep` that
    /// answered `true`.
    fn on_wake(&mut self);

    /// Names each descriptor that becomes readable when there is work. Asked once, before the first poll.
    fn wake_fds(&self, add: &mut dyn FnMut(RawFd));

    /// Has each descriptor watched that has come since [`Self::wake_fds`], such as that of a device opened meanwhile: `watch`
    /// says whether it is from now on. Returns whether all are; while one is not, the reactor does not sleep. Asked before
    /// each sleep. A descriptor that is closed is no longer watched.
    fn watch_new(&mut self, watch: &mut dyn FnMut(RawFd) -> bool) -> bool {
        let _ = watch;
        true
    }
}

/// Two pollers on one reactor; nest for more.
impl<A: Poller, B: Poller> Poller for (A, B) {
    fn poll(&mut self, now: Time) -> usize {
        self.0.poll(now) + self.1.poll(now)
    }

    fn next_deadline(&self) -> Option<Time> {
        earlier(self.0.next_deadline(), self.1.next_deadline())
    }

    fn try_sleep(&mut self) -> bool {
        if !self.0.try_sleep() {
            return false;
        }
        if !self.1.try_sleep() {
            self.0.on_wake();
            return false;
        }
        true
    }

    fn on_wake(&mut self) {
        self.0.on_wake();
        self.1.on_wake();
    }

    fn wake_fds(&self, add: &mut dyn FnMut(RawFd)) {
        self.0.wake_fds(add);
        self.1.wake_fds(add);
    }

    fn watch_new(&mut self, watch: &mut dyn FnMut(RawFd) -> bool) -> bool {
        let first = self.0.watch_new(watch);
        self.1.watch_new(watch) && first
    }
}

/// Any number of pollers of one type, such as an enum of roles.
impl<P: Poller> Poller for Vec<P> {
    fn poll(&mut self, now: Time) -> usize {
        self.iter_mut().map(|poller| poller.poll(now)).sum()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.iter()
            .fold(None, |least, poller| earlier(least, poller.next_deadline()))
    }

    fn try_sleep(&mut self) -> bool {
        let refused = self.iter_mut().position(|poller| !poller.try_sleep());
        if let Some(refused) = refused {
            for armed in &mut self[..refused] {
                armed.on_wake();
            }
        }
        refused.is_none()
    }

    fn on_wake(&mut self) {
        for poller in self {
            poller.on_wake();
        }
    }

    fn wake_fds(&self, add: &mut dyn FnMut(RawFd)) {
        for poller in self {
            poller.wake_fds(add);
        }
    }

    fn watch_new(&mut self, watch: &mut dyn FnMut(RawFd) -> bool) -> bool {
        let mut all = true;
        for poller in self {
            all &= poller.watch_new(watch);
        }
        all
    }
}

fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is armed.
    #[derive(Default)]
    struct Fake {
        has_work: bool,
        deadline: Option<u64>,
        armed: bool,
    }

    impl Poller for Fake {
        fn poll(&mut self, _now: Time) -> usize {
            usize::from(self.has_work)
        }

        fn next_deadline(&self) -> Option<Time> {
            self.deadline.map(Time::from_ns)
        }

        fn try_sleep(&mut self) -> bool {
            self.armed = !self.has_work;
            self.armed
        }

        fn on_wake(&mut self) {
            assert!(self.armed, "only what was armed is taken back");
            self.armed = false;
        }

        fn wake_fds(&self, add: &mut dyn FnMut(RawFd)) {
            add(7);
        }

        fn watch_new(&mut self, watch: &mut dyn FnMut(RawFd) -> bool) -> bool {
            watch(9)
        }
    }

    fn fake(has_work: bool, deadline: Option<u64>) -> Fake {
        Fake {
            has_work,
            deadline,
            armed: false,
        }
    }

    #[test]
    fn one_refusal_takes_all_back() {
        for busy in 0..4 {
            let mut all: Vec<Fake> = (0..3).map(|at| fake(at == busy, None)).collect();
            assert_eq!(all.try_sleep(), busy == 3);
            assert!(all.iter().all(|one| one.armed == (busy == 3)));
            let mut pair = (
                fake(busy == 0, None),
                (fake(busy == 1, None), fake(busy == 2, None)),
            );
            assert_eq!(pair.try_sleep(), busy == 3);
            assert!(
                [pair.0.armed, pair.1.0.armed, pair.1.1.armed]
                    .iter()
                    .all(|armed| *armed == (busy == 3))
            );
            assert_eq!(all.poll(Time::ZERO), pair.poll(Time::ZERO));
        }
    }

    #[test]
    fn the_earliest_deadline_counts_and_all_descriptors_do() {
        let all = vec![
            fake(false, None),
            fake(false, Some(9)),
            fake(false, Some(4)),
        ];
        assert_eq!(all.next_deadline(), Some(Time::from_ns(4)));
        let pair = (fake(false, Some(3)), all);
        assert_eq!(pair.next_deadline(), Some(Time::from_ns(3)));
        assert_eq!(
            (fake(false, None), Vec::<Fake>::new()).next_deadline(),
            None
        );
        let mut fds = 0;
        pair.wake_fds(&mut |fd| fds += fd);
        assert_eq!(fds, 4 * 7);
        for refused in 0..=4 {
            let mut asked = 0;
            let mut pair = (
                fake(false, None),
                vec![fake(false, None), fake(false, None)],
            );
            let all = pair.watch_new(&mut |_| {
                asked += 1;
                asked != refused
            });
            assert_eq!((all, asked), (refused == 0 || refused == 4, 3));
        }
    }
}
