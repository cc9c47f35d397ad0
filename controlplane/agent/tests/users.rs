//! Users of a cluster with controllers: what each right allows, what is denied at the nodes, what a change of rights does to
//! sessions that are open, and that grants outlive the controllers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ionian_client::{ClientConfig as LogConfig, Effect, Error, Log, ReadOutcome};
use ionian_control_agent::{Agent, UserError, keep_grants, user_rights};
use ionian_control_client::identity::Role;
use ionian_control_client::{Client, ClientConfig};
use ionian_control_core::{DirectoryConfig, Operate, Operated, Operation};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, Start};
use ionian_node::Server;
use ionian_node::client::{ClientPortOptions, Credential, UdpLink, UserGrants, UserRights};
use ionian_node::config::{NetworkConfig, client_options};
use ionian_types::{ClientId, Gsn, GuardEpoch, Nanos, NodeId};
use ionian_wire::grant::Rights;

mod common;

use common::{LOG, PATIENCE, able, addresses, controller, furnish, issue, secret, server, until};

/// How long an operation may take that nobody answers.
const SHORT: Nanos = Nanos::from_ms(1500);

/// A controller, two processes, and the agents between them.
struct Bed {
    ca: Ca,
    controllers: Vec<Controller>,
    group: Vec<String>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    agents: Vec<Agent>,
    servers: [Server; 2],
    clients: u128,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self::of(DirectoryConfig::default())
    }

    fn of(behaves: DirectoryConfig) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new("sea").expect("a legal name");
        let first = controller(&ca, 1, folder.path(), Start::Init, behaves);
        let group = vec![first.advertised().to_owned()];
        let addresses = addresses();
        let servers = [1, 2].map(|id| server(id, &addresses, folder.path()));
        let agents = [1_u32, 2].map(|id| {
            let credentials = issue(&ca, Role::Node(u64::from(id)));
            let config = ClientConfig::new(group.clone(), credentials);
            let seam = servers[id as usize - 1].controller_seam();
            let folder = folder.path().join(format!("n{id}"));
            Agent::start(config, seam, Some(folder)).expect("it starts")
        });
        furnish(&servers);
        until("the cluster takes appends", || able(&servers));
        Self {
            ca,
            controllers: vec![first],
            group,
            addresses,
            agents: Vec::from(agents),
            servers,
            clients: 0,
            folder,
        }
    }

    fn user(&self, name: &str) -> Client {
        let credentials = issue(&self.ca, Role::User(name.to_owned()));
        Client::start(ClientConfig::new(self.group.clone(), credentials)).expect("it starts")
    }

    fn operate(&self, who: &Client, operation: Operation) -> Operated {
        let plan = false;
        let request = Operate { plan, operation }.encode();
        let answer = who.operate(&request, PATIENCE).expect("an answer");
        Operated::decode(&answer).expect("an answer")
    }

    fn done(&self, operation: Operation) {
        let answer = self.operate(&self.user("admin"), operation);
        assert!(!answer.refused, "{}", answer.text);
    }

    fn permit(&self, user: &str, rights: Rights) {
        let (log, user) = (LOG, user.to_owned());
        self.done(Operation::GrantLog { log, user, rights });
    }

    /// A user with these rights.
    fn add(&self, name: &str, rights: Rights) {
        let user = name.to_owned();
        self.done(Operation::AddUser { user });
        self.permit(name, rights);
    }

    fn given(&self, name: &str) -> UserRights {
        let given = user_rights(&self.user(name), "default", PATIENCE);
        given.expect("it has rights").0
    }

    fn options(&self, grants: Arc<UserGrants>) -> ClientPortOptions {
        let mut addresses = self.addresses.values();
        let directory = *addresses.next().expect("two nodes");
        let network = NetworkConfig::default();
        ClientPortOptions {
            others: addresses.copied().collect(),
            credential: Credential::User(grants),
            nodes: self.addresses.iter().map(|(id, at)| (*at, *id)).collect(),
            ..client_options(directory, secret(), LOG, &network)
        }
    }

    /// A client with what a user was given, which nobody renews.
    fn client(&mut self, given: &UserRights, timeout: Nanos) -> Log<UdpLink> {
        let grants = Arc::new(UserGrants::new(given.clone()));
        self.client_of(grants, timeout)
    }

    fn client_of(&mut self, grants: Arc<UserGrants>, timeout: Nanos) -> Log<UdpLink> {
        self.clients += 1;
        let id = grants.now().cluster;
        let mut config = LogConfig::new(id, LOG, ClientId::new(self.clients));
        config.append_timeout = Some(timeout);
        config.request_timeout = Some(timeout);
        let link = UdpLink::open(self.options(grants)).expect("a socket");
        Log::open(link, config).expect("a legal configuration")
    }

    /// Messages that nodes refused because a grant did not allow them.
    fn denied(&self) -> u64 {
        let parts = self.servers.iter().map(|server| {
            let status = server.status(PATIENCE).expect("an answer");
            status.port.expect("a port").denied
        });
        parts.sum()
    }
}

const LONG: Nanos = Nanos::from_ms(PATIENCE.as_millis() as u64);

fn lacks(right: Rights) -> Error {
    let effect = Effect::None;
    Error::NoRight { right, effect }
}

#[test]
fn each_right_allows_what_it_names_and_nodes_deny_the_rest() {
    let mut bed = Bed::new();
    bed.add("all", Rights::CLIENT);
    let all = bed.given("all");
    assert_eq!((all.rights, all.grants.len()), (Rights::CLIENT, 2));
    let mut log = bed.client(&all, LONG);
    let first = log.append(b"first").expect("appended").gsn;
    log.append(b"second").expect("appended");
    for right in [Rights::APPEND, Rights::READ, Rights::TRIM] {
        let name = format!("no-{right}");
        bed.add(&name, Rights::CLIENT.without(right));
        let given = bed.given(&name);
        let mut honest = bed.client(&given, LONG);
        let append = honest.append(b"x").map(|_| ());
        let read = honest.read(first).map(|_| ());
        let trim = honest.trim(Gsn::ZERO).map(|_| ());
        for (of, done) in [
            (Rights::APPEND, append),
            (Rights::READ, read),
            (Rights::TRIM, trim),
        ] {
            let expected = if of == right { Err(lacks(of)) } else { Ok(()) };
            assert_eq!(done, expected, "{of} without {right}");
        }
        // One that does not look at its own rights is stopped by the nodes.
        let (before, tail) = (bed.denied(), log.tail().expect("an answer"));
        let lies = UserRights {
            rights: Rights::CLIENT,
            ..bed.given(&name)
        };
        let mut liar = bed.client(&lies, SHORT);
        let done = match right {
            Rights::APPEND => liar.append(b"x").map(|_| ()),
            Rights::READ => liar.read(first).map(|_| ()),
            _ => liar.trim(tail).map(|_| ()),
        };
        assert!(
            matches!(
                done,
                Err(Error::AppendTimedOut { .. } | Error::TimedOut { .. })
            ),
            "{right}: {done:?}"
        );
        assert!(bed.denied() > before, "{right}");
        assert_eq!(log.tail(), Ok(tail), "{right}");
        assert_eq!(log.head(), Ok(Gsn::ZERO), "{right}");
    }
    assert_eq!(log.read(first), Ok(ReadOutcome::Record(b"first".to_vec())));

    // The right to change the log is asked for by the controllers.
    let user = String::from("all");
    let more = || Operation::GrantLog {
        log: LOG,
        user: user.clone(),
        rights: Rights::READ,
    };
    let answer = bed.operate(&bed.user("all"), more());
    assert_eq!(
        (answer.refused, answer.text.as_str()),
        (true, "user all has no right to admin log default")
    );
    bed.add("boss", Rights::ADMIN);
    let answer = bed.operate(&bed.user("boss"), more());
    assert!(!answer.refused, "{}", answer.text);
    let given = bed.given("boss");
    let mut boss = bed.client(&given, LONG);
    assert_eq!(boss.append(b"x").map(|_| ()), Err(lacks(Rights::APPEND)));
}

#[test]
fn a_change_of_rights_reaches_sessions_that_are_open() {
    let mut bed = Bed::new();
    bed.add("ann", Rights::CLIENT);
    let given = bed.given("ann");
    let mut kept = {
        let (first, lease) = user_rights(&bed.user("ann"), "default", PATIENCE).expect("rights");
        let grants = keep_grants(bed.user("ann"), first, lease).expect("a thread");
        bed.client_of(grants, LONG)
    };
    let mut held = bed.client(&given, SHORT);
    held.append(b"with rights").expect("appended");
    kept.append(b"with rights").expect("appended");
    // Taken: the nodes end the session of the one that nobody tells, and a renewed one knows why.
    bed.permit("ann", Rights::READ);
    until("nodes deny what was granted before", || {
        held.append(b"without").is_err()
    });
    let tail = kept.tail().expect("it may read");
    until("the client knows its rights", || {
        kept.append(b"without") == Err(lacks(Rights::APPEND))
    });
    assert!(kept.tail().expect("it may read") >= tail);
    // Given again: a renewed client goes on.
    bed.permit("ann", Rights::CLIENT);
    until("the client may append again", || {
        kept.append(b"with rights again").is_ok()
    });
    assert!(held.append(b"without").is_err(), "an old grant stays void");
    // Revoked altogether.
    let user = String::from("ann");
    bed.done(Operation::RevokeUser { user });
    until("the client has no rights", || {
        kept.tail() == Err(lacks(Rights::READ))
    });
    let refused = user_rights(&bed.user("ann"), "default", PATIENCE);
    match refused {
        Err(UserError::Refused(why)) => assert!(why.contains("ann is no user"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// The lease here is the longest that clients take, and longer than anything takes here: nobody learns of the change by asking when it is over. The nodes are told, and
/// a client whose session they end asks at once. That nodes which a controller reaches take nothing once a change is durable is
/// judged step by step in the simulator's worlds of grants (G2).
#[test]
fn a_revocation_takes_effect_within_one_lease() {
    let lease = Duration::from_secs(60);
    let mut bed = Bed::of(DirectoryConfig {
        grant_lease: Nanos::from_ms(lease.as_millis() as u64),
        ..DirectoryConfig::default()
    });
    bed.add("ann", Rights::CLIENT);
    let (first, said) = user_rights(&bed.user("ann"), "default", PATIENCE).expect("rights");
    assert_eq!(said, lease);
    let given = bed.given("ann");
    let mut held = bed.client(&given, SHORT);
    held.append(b"with rights").expect("appended");
    let grants = keep_grants(bed.user("ann"), first, said).expect("a thread");
    let mut kept = bed.client_of(grants, LONG);
    kept.append(b"with rights").expect("appended");
    let began = std::time::Instant::now();
    let user = String::from("ann");
    bed.done(Operation::RevokeUser { user });
    until("what was granted before is void", || {
        held.append(b"without").is_err()
    });
    until("the client has no rights", || {
        kept.append(b"without") == Err(lacks(Rights::APPEND))
    });
    assert!(began.elapsed() < lease, "after {:?}", began.elapsed());
    // Void for good: nothing of it is taken any more.
    let mut late = bed.client(&given, SHORT);
    assert!(late.append(b"without").is_err());
}

#[test]
fn keys_turn_under_sessions_that_are_open() {
    let mut bed = Bed::of(DirectoryConfig {
        key_life_us: 3_000_000,
        ..DirectoryConfig::default()
    });
    bed.add("ann", Rights::CLIENT);
    let (first, lease) = user_rights(&bed.user("ann"), "default", PATIENCE).expect("rights");
    let began = first.grants[0].0.epoch;
    let grants = keep_grants(bed.user("ann"), first.clone(), lease).expect("a thread");
    let mut kept = bed.client_of(grants, LONG);
    let mut held = bed.client(&first, SHORT);
    held.append(b"in its epoch").expect("appended");
    let asking = bed.user("ann");
    let mut count = 1;
    until("three epochs have begun since", || {
        kept.append(b"in every epoch").expect("appended");
        count += 1;
        let now = user_rights(&asking, "default", PATIENCE).expect("rights").0;
        now.grants[0].0.epoch >= GuardEpoch::new(began.get() + 3)
    });
    until("what was made in an epoch that has ended is void", || {
        held.append(b"after its epoch").is_err()
    });
    assert!(kept.tail().expect("an answer") >= Gsn::new(count));
}

#[test]
fn grants_outlive_the_controllers() {
    let mut bed = Bed::new();
    bed.add("ann", Rights::CLIENT);
    let (first, lease) = user_rights(&bed.user("ann"), "default", PATIENCE).expect("rights");
    let given = bed.given("ann");
    let grants = keep_grants(bed.user("ann"), first, lease).expect("a thread");
    let mut kept = bed.client_of(grants, LONG);
    kept.append(b"with a controller").expect("appended");
    // A session that is open, and one that opens only now, with nobody to ask.
    bed.controllers.clear();
    kept.append(b"without").expect("appended");
    let mut late = bed.client(&given, LONG);
    late.append(b"without").expect("appended");
    // Longer than the lease: what cannot be renewed stays.
    std::thread::park_timeout(lease + Duration::from_secs(1));
    kept.append(b"still without").expect("appended");
    let tail = late.tail().expect("an answer");
    assert!(tail >= Gsn::new(4));
    let refused = user_rights(&bed.user("ann"), "default", Duration::ZERO);
    assert!(
        matches!(refused, Err(UserError::Unanswered(_))),
        "{refused:?}"
    );
    // What a node was told is remembered for its next start, for nobody else to read.
    assert!(bed.folder.path().join("n1/node.keys").exists());
    drop(bed.agents);
}
