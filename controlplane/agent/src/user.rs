//! The grants of a user's client: asked of the controllers, and asked for again before they could be void.
//!
//! A user shows its certificate to whoever leads the controllers, and is given a grant for each node with the rights that it has
//! on one log. They are asked for again after the lease that the controllers name, and soon after a session has ended. While no
//! controller can be reached those that are there stay; a user that has no rights any more loses them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_control_client::{Client, Refusal};
use ionian_control_core::{Details, Operate, Operated, Operation, UserGrants as Given};
use ionian_node::client::{UserGrants, UserRights};

/// The shortest time between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest lease that is believed.
const LEASE_MAX: Duration = Duration::from_secs(60);

/// Why a user was given nothing. Effect: none.
#[derive(Debug)]
#[non_exhaustive]
pub enum UserError {
    /// No controller answers, or none may.
    Unanswered(Refusal),
    /// The controllers refuse it, with this sentence: it is no user, or has no right on the log.
    Refused(String),
    /// The answer is not one.
    Answer(String),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(refusal) => refusal.fmt(f),
            Self::Refused(sentence) => f.write_str(sentence),
            Self::Answer(what) => write!(f, "the controller's answer: {what}"),
        }
    }
}

impl std::error::Error for UserError {}

/// Asks what the user of the client's certificate may do with a log, and for grants to do it; and after how long again.
///
/// # Errors
/// [`UserError`]; effect none.
pub fn user_rights(
    client: &Client,
    log: &str,
    patience: Duration,
) -> Result<(UserRights, Duration), UserError> {
    let operation = Operation::OpenSessions {
        log: log.to_owned(),
    };
    let request = Operate {
        plan: false,
        operation,
    };
    let answer = client.operate(&request.encode(), patience);
    let answer = answer.map_err(UserError::Unanswered)?;
    let answer = Operated::decode(&answer).map_err(|error| UserError::Answer(error.to_string()))?;
    match answer.details {
        _ if answer.refused => Err(UserError::Refused(answer.text)),
        Details::Grants(given) => Ok(rights(given, log)),
        _ => Err(UserError::Answer(String::from("it is of another version"))),
    }
}

fn rights(given: Given, log_name: &str) -> (UserRights, Duration) {
    let lease = Duration::from_millis(u64::from(given.lease_ms)).clamp(PAUSE, LEASE_MAX);
    let rights = UserRights {
        cluster: given.cluster,
        user: given.user,
        log: given.log,
        log_name: log_name.to_owned(),
        rights: given.rights,
        grants: given.grants,
    };
    (rights, lease)
}

/// Keeps what [`user_rights`] gave new, as long as somebody besides has the grants.
///
/// # Errors
/// The system gives no thread; effect none.
pub fn keep_grants(
    client: Client,
    first: UserRights,
    lease: Duration,
) -> io::Result<Arc<UserGrants>> {
    let log = first.log_name.clone();
    let grants = Arc::new(UserGrants::new(first));
    let theirs = grants.clone();
    std::thread::Builder::new()
        .name(String::from("ionian-grants"))
        .spawn(move || keep(&client, &theirs, &log, lease))?;
    Ok(grants)
}

fn keep(client: &Client, grants: &Arc<UserGrants>, log: &str, mut lease: Duration) {
    let mut asked = Instant::now();
    loop {
        grants.wait(lease);
        if Arc::strong_count(grants) == 1 {
            return;
        }
        // Sessions that end one after the other are one reason.
        let soon = PAUSE.saturating_sub(asked.elapsed());
        if !soon.is_zero() {
            std::thread::park_timeout(soon);
        }
        asked = Instant::now();
        match user_rights(client, log, Duration::ZERO) {
            Ok((now, next)) => {
                lease = next;
                grants.put(now);
            }
            Err(UserError::Refused(_)) => grants.withdraw(),
            // What is there stays good while nobody says otherwise.
            Err(_) => {}
        }
    }
}
