//! A tree, its root group and its servers, made and brought to the point where cuts flow: the harness is the controller that
//! grants and opens, and the client that trims.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_core::aggregator::{Aggregator, AggregatorConfig};
use ionian_core::leaf::{Leaf, LeafConfig};
use ionian_core::root::{Root, RootConfig};
use ionian_driver_api::Clock;
use ionian_node::device::{self, StoreIo};
use ionian_runtime::MonotonicClock;
use ionian_slots::{DownRings, SlotReader, SlotTable};
use ionian_store::{Store, StoreConfig};
use ionian_types::{
    ClientId, ClusterId, ConnId, EntryNo, Gsn, Inc, LogId, Nanos, NodeId, RootEpoch, SessionNo,
    ShardId, Slot, ViewId,
};
use ionian_wire::codec::Field;
use ionian_wire::entry::{Change, encode_members, write_change};
use ionian_wire::frame::{Hello, Intent, Member, Role, RootGrant, TrimRequest};
use ionian_wire::tree::{TreeVertex, encode_vertices};
use ionian_wire::{WIRE_VERSION, Writer};

use crate::board::{Board, Growth};
use crate::hall::{self, Hall, Machine};
use crate::leaf::{Intake, LeafPost, Outlet, Sink};
use crate::line::{Line, datagrams, rings, sockets};
use crate::reporters::{Reporters, ServerOf};
use crate::setting::{Setting, Transport};
use crate::shape::{Place, places, process, vertices};
use crate::trace::encoded;

const CLUSTER: ClusterId = ClusterId::new(7);
pub(crate) const LOG: LogId = LogId::new(1);
/// The leader's connections to the harness.
const CONTROLLER: ConnId = ConnId::new(0);
const CLIENT: ConnId = ConnId::new(1);
/// Bytes of one view's changes, at most.
const VIEW_BYTES: usize = 512 * 1024;
/// Servers' incarnations begin here.
const SERVER_INC: u64 = 1_000_000;
/// Servers of which ages at the root are noted, about.
const FOLLOWED: usize = 256;
/// How long the tree may take to start.
const START: Duration = Duration::from_secs(60);

/// Everything of a run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) halls: Vec<Hall>,
    pub(crate) reporters: Reporters,
    pub(crate) board: Arc<Board>,
    /// For a bare scan: a reader of each leaf's slots.
    pub(crate) bare: Vec<SlotReader>,
    pub(crate) clock: MonotonicClock,
    /// What keeps the cut logs.
    pub(crate) device: String,
    pub(crate) vertices: usize,
    views: u64,
}

/// Where the members of the root group and the vertices are: hall and post.
type At = (usize, usize);

impl World {
    /// Makes the machines and connects them.
    ///
    /// # Errors
    /// Sockets, files or threads that cannot be had.
    pub(crate) fn new(setting: &Setting, halls: usize) -> io::Result<Self> {
        let clock = MonotonicClock::start();
        let rate = if setting.report_rate == 0 {
            // As at this rate: so that lengths grow by a few records.
            10_000
        } else {
            setting.report_rate
        };
        let records = setting.shard_rate as f64 / (setting.replicas as f64 * rate as f64);
        let board = Arc::new(Board::new(setting.servers(), Growth::new(records)));
        let places = places(setting.fan_in, setting.depth, setting.shards);
        let reporters = Reporters::new(board.clone(), clock, setting.replicas);
        let mut world = Self {
            halls: (0..halls)
                .map(|_| Hall::new(clock, board.clone()))
                .collect(),
            reporters,
            board,
            bare: Vec::new(),
            clock,
            device: String::from("memory"),
            vertices: places.len(),
            views: 0,
        };
        world.add_group(setting)?;
        world.add_tree(setting, &places)?;
        world.start(setting, &places)?;
        Ok(world)
    }

    /// The leader and the backups, all in the first hall.
    fn add_group(&mut self, setting: &Setting) -> io::Result<()> {
        for slot in 0..=setting.root_backups {
            let (node, inc) = member(slot);
            let config = StoreConfig {
                entropy: slot as u64 + 1,
                ..StoreConfig::new(CLUSTER, node, LOG, ShardId::MAX, 0, setting.class)
            };
            let (store, device) = match &setting.dir {
                Some(dir) if setting.class.is_flushed() => {
                    let (mut store, device) = open(&dir.join(format!("root-{slot}")), config)?;
                    store.set_inc(inc);
                    self.device = device.backend().to_owned();
                    (store, Some(Box::new(device)))
                }
                _ => (Store::new(config), None),
            };
            let config = RootConfig {
                slot: Slot::new(slot as u8),
                cut_interval: Nanos(setting.interval.as_nanos() as u64),
                ..RootConfig::new(CLUSTER, node, inc, LOG, setting.class)
            };
            let root = Root::new(config, store, self.clock.now());
            let (name, role) = match slot {
                0 => (String::from("root leader"), hall::Role::Leader),
                _ => (format!("root backup {slot}"), hall::Role::Backup),
            };
            let machine = Machine::Root(Box::new(root), device);
            let post = self.halls[0].add(name, machine, role);
            if slot == 0 {
                for _ in [CONTROLLER, CLIENT] {
                    self.halls[0].connect(post, Line::Desk);
                }
            }
        }
        for slot in 1..=setting.root_backups {
            self.join((0, 0), (0, slot), setting, 1)?;
        }
        Ok(())
    }

    /// Aggregators stay with the root; leaves are spread over the other halls.
    fn add_tree(&mut self, setting: &Setting, places: &[Place]) -> io::Result<()> {
        let leaves = places.iter().filter(|place| place.children == 0).count();
        let shift = (setting.servers() / FOLLOWED).max(1).ilog2();
        let (mut leaf, mut at_of): (usize, Vec<At>) = (0, Vec::new());
        for (at, place) in places.iter().enumerate() {
            let (node, inc) = process(at);
            let now = self.clock.now();
            let here = if place.children > 0 {
                let config = AggregatorConfig::new(CLUSTER, node, inc, LOG, Slot::ZERO);
                let machine = Machine::Aggregator(Box::new(Aggregator::new(config, now)));
                let name = format!("aggregator {at}");
                (0, self.halls[0].add(name, machine, hall::Role::Aggregator))
            } else {
                let others = (self.halls.len() - 1).max(1);
                let hall = (self.halls.len() - 1).min(1 + leaf * others / leaves.max(1));
                leaf += 1;
                let config = LeafConfig::new(CLUSTER, node, inc, LOG);
                let machine = Leaf::new(config, now);
                let machine = self.leaf(machine, setting, place, shift)?;
                let name = format!("leaf {at}");
                let machine = Machine::Leaf(Box::new(machine));
                (hall, self.halls[hall].add(name, machine, hall::Role::Leaf))
            };
            let above = place.parent.map_or((0, 0), |parent| at_of[parent]);
            at_of.push(here);
            let segments = place.shards.len() * setting.replicas;
            self.join(above, here, setting, segments)?;
        }
        Ok(())
    }

    /// A leaf with the slots of its servers, and theirs ways back.
    fn leaf(
        &mut self,
        mut leaf: Leaf,
        setting: &Setting,
        place: &Place,
        shift: u32,
    ) -> io::Result<LeafPost> {
        let replicas = setting.replicas;
        let (first, servers) = (place.shards.start * replicas, place.shards.len() * replicas);
        let table = SlotTable::new(servers, replicas).map_err(io::Error::other)?;
        let reader = table.reader();
        self.bare.push(table.reader());
        let reads = |server: usize| reads(server, setting);
        let server = |server: usize| ServerOf {
            number: server,
            epoch: ViewId::new(1 + (server / replicas / shards_per_view(replicas)) as u64),
            inc: server_inc(server),
        };
        let all = first..first + servers;
        let writers = (0..servers).filter_map(|seat| table.writer(seat)).collect();
        let (intake, outlet) = if setting.transport == Transport::Udp {
            let (near, far) = sockets()?;
            let servers = all.clone().map(server).collect();
            let readers: Vec<bool> = all.clone().map(reads).collect();
            let near_in = near.try_clone()?;
            self.reporters.add_datagrams(far, servers, &readers);
            let bytes = Vec::with_capacity(2 * crate::leaf::DATAGRAM_BYTES);
            let outlet = Outlet::Datagrams {
                socket: near,
                bytes,
            };
            (Some(Intake::new(near_in, writers)), outlet)
        } else {
            let rings =
                DownRings::new(servers, replicas, setting.down_frames).map_err(io::Error::other)?;
            let readers = all.clone().map(|server| {
                reads(server)
                    .then(|| rings.reader(server - first))
                    .flatten()
            });
            self.reporters
                .add_slots(writers, all.clone().map(server), readers);
            let writer = rings
                .writer()
                .ok_or_else(|| io::Error::other("rings without a writer"))?;
            (None, Outlet::Rings(writer))
        };
        for seat in 0..servers {
            let (shard, member) = ((first + seat) / replicas, (first + seat) % replicas);
            leaf.seat(seat, ShardId::new(shard as u32), Slot::new(member as u8));
        }
        let sink = Sink::new(
            outlet,
            self.board.clone(),
            (first, servers, replicas),
            shift,
        );
        Ok(LeafPost::new(leaf, reader, intake, sink))
    }

    /// Connects two machines, by the transport that levels use.
    fn join(&mut self, a: At, b: At, setting: &Setting, segments: usize) -> io::Result<()> {
        let number = self.halls.iter().flat_map(|hall| &hall.posts);
        let number = number.map(|post| post.lines.len() as u64).sum();
        let (near, far) = match setting.transport {
            Transport::InProcess => (Line::Loose, Line::Loose),
            // The longest round: eleven bytes for each segment, twelve for each shard; and parts of an edge's start.
            Transport::Shm => rings((segments * 24).max(128 * 1024)),
            Transport::Udp => datagrams(number, self.clock.now())?,
        };
        let near = self.halls[a.0].connect(a.1, near);
        let far = self.halls[b.0].connect(b.1, far);
        if setting.transport == Transport::InProcess {
            let direct = |(_, post): At, conn| Line::Direct { post, conn };
            self.halls[a.0].replace(a.1, near, direct(b, far));
            self.halls[b.0].replace(b.1, far, direct(a, near));
        }
        self.halls[a.0].open(a.1, near);
        self.halls[b.0].open(b.1, far);
        self.halls[a.0].greet(a.1)?;
        self.halls[b.0].greet(b.1)
    }

    /// The controller's part: the leader's epoch, the shards, the tree.
    fn start(&mut self, setting: &Setting, places: &[Place]) -> io::Result<()> {
        for (conn, role) in [(CONTROLLER, Role::Controller), (CLIENT, Role::Client)] {
            let hello = encoded(&hello(role), &[]);
            self.halls[0].tell(0, conn, &hello)?;
        }
        while !self.halls[0].desk.led {
            // Asked for again where the journal had no room yet.
            self.halls[0].desk.asked = false;
            self.grant(setting, false)?;
            self.until("the root group leads", |world| {
                world.halls[0].desk.led || world.halls[0].desk.asked
            })?;
        }
        self.grant(setting, true)?;
        let per_view = shards_per_view(setting.replicas);
        let mut first = 0;
        while first < setting.shards {
            let last = setting.shards.min(first + per_view);
            self.open(setting, first..last, (first == 0).then_some(places))?;
            first = last;
        }
        for hall in &mut self.halls {
            hall.hurry();
        }
        let (shards, vertices) = (setting.shards, places.len());
        self.until("every edge of the tree runs", |world| {
            let now = world.clock.now();
            let leaves = world.halls.iter().flat_map(Hall::leaves);
            let mut started = 0;
            let open: usize = leaves
                .map(|post| {
                    let open = post.leaf.status(now).len();
                    started += usize::from(open > 0);
                    open
                })
                .sum();
            open == shards && started + world.inner() == vertices
        })
    }

    /// Aggregators.
    fn inner(&self) -> usize {
        let posts = self.halls.iter().flat_map(|hall| &hall.posts);
        posts
            .filter(|post| post.role == hall::Role::Aggregator)
            .count()
    }

    /// Passes until something holds.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> io::Result<()> {
        let began = Instant::now();
        while !holds(self) {
            for hall in &mut self.halls {
                hall.pass()?;
            }
            if began.elapsed() > START {
                return Err(io::Error::other(format!("it takes too long until {what}")));
            }
        }
        Ok(())
    }

    fn grant(&mut self, setting: &Setting, recorded: bool) -> io::Result<()> {
        let members = 1 + setting.root_backups;
        let quorum = members / 2 + 1;
        let (_, inc) = member(0);
        let grant = RootGrant {
            log: LOG,
            inc,
            epoch: RootEpoch::new(1),
            floor: Gsn::ZERO,
            ceiling: Gsn::new(1 << 62),
            view: ViewId::ZERO,
            write_quorum: quorum as u8,
            seal_quorum: (members + 1 - quorum) as u8,
            members: members as u8,
            recorded,
        };
        let mut tail = Vec::new();
        for (node, inc) in (0..members).map(member) {
            tail.extend_from_slice(&node.get().to_le_bytes());
            tail.extend_from_slice(&inc.get().to_le_bytes());
        }
        self.halls[0].tell(0, CONTROLLER, &encoded(&grant, &tail))
    }

    /// The next view: it opens some shards, and states the tree.
    fn open(
        &mut self,
        setting: &Setting,
        shards: std::ops::Range<usize>,
        tree: Option<&[Place]>,
    ) -> io::Result<()> {
        let mut changes = vec![0; 2 * VIEW_BYTES];
        let mut writer = Writer::new(&mut changes);
        for shard in shards {
            let members: Vec<Member> = (0..setting.replicas)
                .map(|slot| {
                    let server = shard * setting.replicas + slot;
                    Member {
                        node: NodeId::new(1_000_000 + server as u32),
                        inc: server_inc(server),
                        domain: slot as u32,
                    }
                })
                .collect();
            let mut bytes = [0; 16 * 8];
            let open = Change::Open {
                shard: ShardId::new(shard as u32),
                rank: shard as u32,
                log: LOG,
                class: setting.class,
                quorum: setting.replicas as u8,
                members: encode_members(&mut bytes, &members).map_err(io::Error::other)?,
            };
            write_change(&mut writer, &open).map_err(io::Error::other)?;
        }
        if let Some(places) = tree {
            let mut bytes = vec![0; places.len() * TreeVertex::LEN];
            let vertices =
                encode_vertices(&mut bytes, vertices(places)).map_err(io::Error::other)?;
            write_change(&mut writer, &Change::Tree { vertices }).map_err(io::Error::other)?;
        }
        let len = writer.len();
        self.views += 1;
        let view = ViewId::new(self.views);
        let intent = encoded(&Intent { log: LOG, view }, &changes[..len]);
        self.halls[0].tell(0, CONTROLLER, &intent)?;
        let done = self.views;
        self.until("a view is logged", |world| {
            world.halls[0].desk.view_done >= done
        })
    }
}

impl Hall {
    /// Asks for a trim of everything that is ordered: what is left of the log's bounds.
    pub(crate) fn trim(&mut self, upto: u64) -> io::Result<()> {
        let request = TrimRequest {
            log: LOG,
            request: 1,
            upto: Gsn::new(upto),
        };
        self.tell(0, CLIENT, &encoded(&request, &[]))
    }

    /// Puts another line in the place of one.
    fn replace(&mut self, post: usize, conn: ConnId, mut line: Line) {
        self.outs[post].set_room(conn, line.room());
        self.posts[post].lines[conn.index()] = line;
    }
}

/// Shards that one view opens.
const fn shards_per_view(replicas: usize) -> usize {
    VIEW_BYTES / (32 + 16 * replicas)
}

/// Whether a server reads what it is told: evenly spread over all.
fn reads(server: usize, setting: &Setting) -> bool {
    let (readers, servers) = (setting.readers(), setting.servers());
    server * readers / servers != (server + 1) * readers / servers
}

const fn member(slot: usize) -> (NodeId, Inc) {
    (NodeId::new(1 + slot as u32), Inc::new(1 + slot as u64))
}

/// The life of a server.
pub(crate) const fn server_inc(server: usize) -> Inc {
    Inc::new(SERVER_INC + server as u64)
}

fn hello(role: Role) -> Hello {
    Hello {
        cluster: CLUSTER,
        wire_version: WIRE_VERSION,
        role,
        node: NodeId::new(900),
        inc: Inc::new(900),
        log: LOG,
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::default(),
        session: SessionNo::ZERO,
    }
}

/// A journal on files below `path`.
fn open(path: &Path, config: StoreConfig) -> io::Result<(Store, StoreIo)> {
    let opening = device::open(path, config, Arc::default(), None).map_err(io::Error::other)?;
    let opening = opening.finish().map_err(io::Error::other)?;
    Ok((opening.store, opening.io))
}
