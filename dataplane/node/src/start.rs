//! How a place comes to life on its host: it registers over its connection to the controller, makes the incarnation that it
//! is given durable, and starts with it. What the controller says in between waits in the connection.

use ionian_core::Outbox;
use ionian_types::{ConnId, Inc, Time};
use ionian_wire::frame::Message;

use crate::host::{Ended, Tenant};
use crate::role::{Admission, DirectoryRole, Machine, Place};
use crate::server::Shared;

/// Sends the registration of a place that waits, once its store is ready.
pub(crate) fn register(tenant: &mut Tenant, out: &mut Outbox) {
    let Machine::Waiting(waiting) = &mut tenant.machine else {
        return;
    };
    let asked = waiting.asked || waiting.admitted.is_some();
    let Some(conn) = tenant.controller.filter(|_| !asked) else {
        return;
    };
    let address = waiting.address.clone();
    if out
        .send(conn, &waiting.register(), address.as_bytes())
        .is_ok()
    {
        waiting.asked = true;
    }
}

/// The connection to the controller is gone: a place that waits asks again over the next one, under a new number, since an
/// answer to the old question may name a life that is past.
pub(crate) fn forget_request(tenant: &mut Tenant) {
    if let Machine::Waiting(waiting) = &mut tenant.machine {
        waiting.asked = false;
        waiting.request += 1;
        waiting.hello = None;
    }
}

/// Whether a life of the place is to begin now.
#[inline]
pub(crate) fn is_due(tenant: &Tenant) -> bool {
    matches!(&tenant.machine, Machine::Waiting(waiting) if waiting.begins().is_some())
}

/// The life of a place begins: its machine says who it is on every connection, that to the controller included. The caller
/// has said how much room each has.
#[cold]
pub(crate) fn begin(tenant: &mut Tenant, now: Time, out: &mut Outbox) {
    let Machine::Waiting(waiting) = &mut tenant.machine else {
        return;
    };
    let Some(admission) = waiting.begins() else {
        return;
    };
    let mut machine = waiting.start(admission, now);
    for opened in waiting.opened.drain(..) {
        machine.opened(opened, out);
    }
    if let Some(conn) = tenant.controller {
        machine.opened(conn, out);
        if let Some(hello) = waiting.hello {
            greeted(&mut machine, now, conn, &Message::Hello(hello, &[]), out);
        }
    }
    tenant.machine = machine;
}

/// The controller has said hello to a place.
fn greeted(machine: &mut Machine, now: Time, conn: ConnId, hello: &Message<'_>, out: &mut Outbox) {
    match machine {
        Machine::Replica(machine) => machine.governed(conn),
        _ => machine.handle(now, conn, hello, out),
    }
}

/// Hands a message to the machine of a place, or to its start.
#[inline]
pub(crate) fn deliver(
    tenant: &mut Tenant,
    shared: &Shared,
    now: Time,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Outbox,
) {
    if tenant.controller == Some(conn) {
        from_controller(tenant, shared, now, conn, message, out);
    } else {
        tenant.machine.handle(now, conn, message, out);
    }
}

#[cold]
fn from_controller(
    tenant: &mut Tenant,
    shared: &Shared,
    now: Time,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Outbox,
) {
    match (&mut tenant.machine, message) {
        // Every bound place is sent it, unasked, when it changes.
        (_, Message::DirectoryAnswer(answer, map)) => {
            shared.learn(answer.version, map);
            if let Some(ended) = &mut tenant.ended {
                ended.tell();
            }
        }
        (Machine::Waiting(_), _) => on_waiting(tenant, shared, now, message),
        // A later life has taken the place, or what this one holds is void, or the place is no more.
        (_, Message::Registered(answer, reason)) if answer.inc == Inc::ZERO => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            shared.note(&format!("{} has ended", tenant.place), &reason);
            let refused = Machine::Refused(reason);
            let machine = core::mem::replace(&mut tenant.machine, refused);
            if matches!(
                machine,
                Machine::Root(_) | Machine::Leaf(_) | Machine::Aggregator(_)
            ) {
                tenant.ended = Some(Ended::new(now, machine));
            }
        }
        (machine, Message::Hello(..)) => greeted(machine, now, conn, message, out),
        (Machine::Root(_) | Machine::Aggregator(_) | Machine::Leaf(_), _) => {
            tenant.machine.handle(now, conn, message, out)
        }
        _ => {}
    }
}

/// Handles a message of the controller to a place that has no life yet.
fn on_waiting(tenant: &mut Tenant, shared: &Shared, now: Time, message: &Message<'_>) {
    let Machine::Waiting(waiting) = &mut tenant.machine else {
        return;
    };
    match message {
        Message::Hello(hello, _) => waiting.hello = Some(*hello),
        Message::Registered(answer, reason) if answer.request == waiting.request => {
            if answer.inc == Inc::ZERO {
                let reason = String::from_utf8_lossy(reason).into_owned();
                let about = format!("{} was refused by the controllers", tenant.place);
                shared.note(&about, &reason);
                let refused = Machine::Refused(reason);
                let machine = core::mem::replace(&mut tenant.machine, refused);
                // It may have been to go elsewhere by then, and be to come back.
                if matches!(tenant.place, Place::Leaf(..) | Place::Aggregator(..)) {
                    tenant.ended = Some(Ended::refused(now, machine));
                }
                return;
            }
            let (cluster, inc) = (answer.cluster, answer.inc);
            waiting.admit(Admission { cluster, inc });
        }
        _ => {}
    }
}

/// The file that holds the directory's state.
pub(crate) const DIRECTORY_FILE: &str = "controller.state";

/// Makes a change of the directory durable: at once where it lives in memory only.
pub(crate) fn persist(role: &mut DirectoryRole) {
    while let Some(snapshot) = role.machine.take_snapshot() {
        let kept = match &role.file {
            None => Ok(()),
            Some(dir) => dir.write_small(DIRECTORY_FILE, &snapshot.bytes),
        };
        match kept {
            Ok(()) => role.machine.persisted(snapshot.version),
            Err(_) => {
                role.machine.not_persisted();
                return;
            }
        }
    }
}
