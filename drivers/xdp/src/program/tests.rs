//! The program against frames built by hand: by an interpreter of the few instructions it uses, on every machine, and by
//! the kernel itself (BPF_PROG_TEST_RUN) as root.

use std::os::fd::AsRawFd;

use super::*;
use crate::bpf;

const OURS: MacAddr = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0xf5]);
const OTHER: MacAddr = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0xf6]);
const BROADCAST: MacAddr = MacAddr([0xff; 6]);
const SOLICITED: MacAddr = MacAddr([0x33, 0x33, 0xff, 0, 0, 1]);
const PORT: u16 = 40_001;

fn v4() -> Filter {
    Filter {
        mac: OURS,
        local: SocketAddr::from(([10, 91, 200, 1], PORT)),
        vlan: None,
    }
}

fn v6() -> Filter {
    Filter {
        local: SocketAddr::from((Ipv6Addr::new(0xfd00, 0, 0, 0xffee, 0, 0, 0x8899, 1), PORT)),
        ..v4()
    }
}

fn network_order(value: u16) -> [u8; 2] {
    [(value >> 8) as u8, value as u8]
}

/// A frame as its fields; what is not said is as it should be.
#[derive(Clone)]
struct Frame {
    bytes: Vec<u8>,
    network: usize,
}

impl Frame {
    fn ethernet(filter: &Filter, to: MacAddr, kind: u16) -> Self {
        let mut bytes = [to.0, OTHER.0].concat();
        if let Some(vlan) = filter.vlan {
            bytes.extend([0x81, 0]);
            // Priority bits beside the identifier.
            bytes.extend(network_order(vlan | 0xe000));
        }
        bytes.extend(network_order(kind));
        let network = bytes.len();
        Self { bytes, network }
    }

    fn udp(filter: &Filter, to: MacAddr) -> Self {
        let port = network_order(filter.local.port());
        let mut frame = match filter.local.ip() {
            IpAddr::V4(address) => {
                let mut frame = Self::ethernet(filter, to, 0x0800);
                frame
                    .bytes
                    .extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0]);
                frame.bytes.extend([10, 91, 200, 2]);
                frame.bytes.extend(address.octets());
                frame
            }
            IpAddr::V6(address) => {
                let mut frame = Self::ethernet(filter, to, 0x86dd);
                frame.bytes.extend([0x60, 0, 0, 0, 0, 12, 17, 64]);
                frame.bytes.extend([0xfd; 16]);
                frame.bytes.extend(address.octets());
                frame
            }
        };
        frame.bytes.extend([0x12, 0x34]);
        frame.bytes.extend(port);
        frame.bytes.extend([0, 12, 0, 0, 1, 2, 3, 4]);
        frame
    }

    fn arp(filter: &Filter, to: MacAddr, target: Ipv4Addr) -> Self {
        let mut frame = Self::ethernet(filter, to, 0x0806);
        frame.bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.bytes.extend(OTHER.0);
        frame.bytes.extend([10, 91, 200, 2, 0, 0, 0, 0, 0, 0]);
        frame.bytes.extend(target.octets());
        frame
    }

    fn neighbour(
        filter: &Filter,
        to: MacAddr,
        kind: u8,
        address: Ipv6Addr,
        target: Ipv6Addr,
    ) -> Self {
        let mut frame = Self::ethernet(filter, to, 0x86dd);
        frame.bytes.extend([0x60, 0, 0, 0, 0, 24, 58, 255]);
        frame.bytes.extend([0xfe; 16]);
        frame.bytes.extend(address.octets());
        frame.bytes.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        frame.bytes.extend(target.octets());
        frame
    }

    /// The same frame with other bytes at an offset of the network header.
    fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        let at = self.network + at;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn cut(mut self, bytes: usize) -> Self {
        self.bytes.truncate(bytes);
        self
    }
}

/// Frames with what should become of them: `true` for ours.
fn cases(filter: &Filter) -> Vec<(&'static str, Frame, bool)> {
    let udp = Frame::udp(filter, OURS);
    let len = udp.bytes.len();
    let mut cases = vec![
        ("udp", udp.clone(), true),
        ("udp to another mac", Frame::udp(filter, OTHER), false),
        ("udp to all", Frame::udp(filter, BROADCAST), false),
        ("udp without payload", udp.clone().cut(len - 4), true),
        ("udp cut in its header", udp.clone().cut(len - 5), false),
        (
            "cut in the network header",
            udp.clone().cut(udp.network + 10),
            false,
        ),
        ("no network header", udp.clone().cut(14), false),
        (
            "unknown type",
            Frame::ethernet(filter, OURS, 0x88b5).pad(),
            false,
        ),
    ];
    let untagged = Filter {
        vlan: None,
        ..*filter
    };
    if filter.vlan.is_some() {
        let other = Filter {
            vlan: Some(7),
            ..*filter
        };
        cases.push(("another vlan", Frame::udp(&other, OURS), false));
        cases.push(("no vlan", Frame::udp(&untagged, OURS), false));
    } else {
        let tagged = Filter {
            vlan: Some(7),
            ..*filter
        };
        cases.push(("a vlan", Frame::udp(&tagged, OURS), false));
    }
    match filter.local.ip() {
        IpAddr::V4(own) => {
            let other = Ipv4Addr::new(10, 91, 200, 3);
            cases.extend([
                ("another protocol", udp.clone().with(9, &[6]), false),
                (
                    "another address",
                    udp.clone().with(16, &other.octets()),
                    false,
                ),
                ("another port", udp.clone().with(22, &[0, 80]), false),
                ("options", udp.clone().with(0, &[0x46]), false),
                ("a first fragment", udp.clone().with(6, &[0x20, 0]), false),
                ("a later fragment", udp.clone().with(6, &[0, 1]), false),
                (
                    "arp for us, to all",
                    Frame::arp(filter, BROADCAST, own),
                    true,
                ),
                ("arp for us, to us", Frame::arp(filter, OURS, own), true),
                ("arp at another mac", Frame::arp(filter, OTHER, own), false),
                (
                    "arp for another",
                    Frame::arp(filter, BROADCAST, other),
                    false,
                ),
                (
                    "arp for another, to us",
                    Frame::arp(filter, OURS, other),
                    false,
                ),
            ]);
        }
        IpAddr::V6(own) => {
            let other = Ipv6Addr::new(0xfd00, 0, 0, 0xffee, 0, 0, 0x8899, 2);
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff99, 1);
            let ask = |to, target| Frame::neighbour(filter, to, 135, group, target);
            let tell = |to, address| Frame::neighbour(filter, to, 136, address, other);
            cases.extend([
                ("another protocol", udp.clone().with(6, &[6]), false),
                ("another port", udp.clone().with(42, &[0, 80]), false),
                ("solicitation", ask(SOLICITED, own), true),
                ("solicitation to us", ask(OURS, own), true),
                ("solicitation for another", ask(SOLICITED, other), false),
                ("solicitation at another mac", ask(OTHER, own), false),
                (
                    "solicitation, cut",
                    ask(OURS, own).cut(udp.network + 63),
                    false,
                ),
                ("advertisement", tell(OURS, own), true),
                ("advertisement to another", tell(OURS, other), false),
                ("advertisement to all", tell(BROADCAST, own), false),
                (
                    "echo request",
                    Frame::neighbour(filter, OURS, 128, own, own),
                    false,
                ),
            ]);
            for byte in 24..40 {
                let wrong = udp.bytes[udp.network + byte] ^ 0x10;
                cases.push((
                    "one byte of the address",
                    udp.clone().with(byte, &[wrong]),
                    false,
                ));
            }
        }
    }
    for byte in 0..6 {
        let mut frame = udp.clone();
        frame.bytes[byte] ^= 0x10;
        cases.push(("one byte of the mac", frame, false));
    }
    cases
}

impl Frame {
    fn pad(mut self) -> Self {
        self.bytes.resize(60, 0);
        self
    }
}

fn filters() -> [Filter; 4] {
    let tagged = |filter| Filter {
        vlan: Some(42),
        ..filter
    };
    [v4(), v6(), tagged(v4()), tagged(v6())]
}

/// Runs the program over a frame. Every access is checked against the bytes that the program has made sure of, as the
/// kernel's verifier does, so that an interpreted run fails where the verifier would.
fn interpret(program: &[Insn], frame: &[u8], queue: u32) -> Result<Action, String> {
    /// Where frames and the context lie in the numbers of the interpreter.
    const FRAME_AT: u64 = 0x1_0000;
    const CTX_AT: u64 = 0x8_0000;
    let mut registers = [0u64; 11];
    registers[1] = CTX_AT;
    let (mut at, mut checked) = (0usize, 0u64);
    for _ in 0..1_000 {
        let insn = *program.get(at).ok_or("ran past the end")?;
        let (destination, source) = (
            usize::from(insn.registers & 15),
            usize::from(insn.registers >> 4),
        );
        let immediate = i64::from(insn.immediate).cast_unsigned();
        at += 1;
        let mut jump = |taken: bool| {
            if taken {
                at = at.wrapping_add_signed(insn.offset.into());
            }
        };
        match insn.code {
            op::LDX_B | op::LDX_H | op::LDX_W => {
                let address = registers[source].wrapping_add_signed(insn.offset.into());
                registers[destination] = if address >= CTX_AT {
                    match i16::try_from(address - CTX_AT).map_err(|e| e.to_string())? {
                        CTX_DATA => FRAME_AT,
                        CTX_DATA_END => FRAME_AT + frame.len() as u64,
                        CTX_RX_QUEUE_INDEX => queue.into(),
                        other => return Err(format!("context byte {other}")),
                    }
                } else {
                    let bytes = match insn.code {
                        op::LDX_B => 1,
                        op::LDX_H => 2,
                        _ => 4,
                    };
                    let start = address.checked_sub(FRAME_AT).ok_or("before the frame")?;
                    if start + bytes > checked {
                        return Err(format!("byte {start} was not made sure of"));
                    }
                    // As the machine would load it: in the order of its bytes in memory, lowest first.
                    let field = &frame[start as usize..(start + bytes) as usize];
                    field
                        .iter()
                        .rev()
                        .fold(0, |sum, b| sum << 8 | u64::from(*b))
                };
            }
            op::END_TO_BE => {
                let value = registers[destination];
                registers[destination] = match insn.immediate {
                    16 => u64::from((value as u16).swap_bytes()),
                    32 => u64::from((value as u32).swap_bytes()),
                    other => return Err(format!("swap of {other} bits")),
                };
            }
            op::MOV64_IMM => registers[destination] = immediate,
            op::MOV64_REG => registers[destination] = registers[source],
            op::ADD64_IMM => {
                registers[destination] = registers[destination].wrapping_add(immediate);
            }
            op::AND32_IMM => {
                registers[destination] =
                    u64::from(registers[destination] as u32 & insn.immediate.cast_unsigned());
            }
            op::JA => jump(true),
            op::JGT64_REG => {
                let beyond = registers[destination] > registers[source];
                if !beyond {
                    checked = checked.max(registers[destination] - FRAME_AT);
                }
                jump(beyond);
            }
            op::JEQ32_IMM => jump(registers[destination] as u32 == insn.immediate.cast_unsigned()),
            op::JNE32_IMM => jump(registers[destination] as u32 != insn.immediate.cast_unsigned()),
            op::LD_IMM64 => {
                registers[destination] = immediate;
                at += 1;
            }
            op::CALL => {
                assert_eq!(insn.immediate, HELPER_REDIRECT_MAP);
                if registers[2] != u64::from(queue) {
                    return Err(format!("redirect to queue {}", registers[2]));
                }
                // No socket is in the map: the answer is what the third argument says.
                registers[0] = registers[3];
            }
            op::EXIT => {
                return match registers[0] {
                    1 => Ok(Action::Drop),
                    2 => Ok(Action::Pass),
                    other => Err(format!("action {other}")),
                };
            }
            other => return Err(format!("opcode {other:#x}")),
        }
    }
    Err("did not end".to_owned())
}

#[test]
fn frames_for_us_are_redirected_and_all_others_pass() {
    for filter in filters() {
        let program = assemble(&filter, 3, Action::Drop);
        for (name, frame, ours) in cases(&filter) {
            let expected = if ours { Action::Drop } else { Action::Pass };
            assert_eq!(
                interpret(&program, &frame.bytes, 5),
                Ok(expected),
                "{name} with {filter:?}"
            );
        }
    }
}

#[test]
fn no_frame_makes_the_program_read_what_it_has_not_made_sure_of() {
    let mut state = 1u64;
    for filter in filters() {
        let program = assemble(&filter, 3, Action::Drop);
        for (_, frame, _) in cases(&filter) {
            for len in 0..=frame.bytes.len() {
                interpret(&program, &frame.bytes[..len], 0).expect("a defined end");
                let mut noisy = frame.bytes[..len].to_vec();
                for byte in &mut noisy {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    if state >> 61 == 0 {
                        *byte = (state >> 32) as u8;
                    }
                }
                interpret(&program, &noisy, 0).expect("a defined end");
            }
        }
    }
}

#[test]
fn the_kernel_takes_the_program_and_runs_it_the_same_way() {
    let Ok(map) = bpf::create_xskmap(1) else {
        println!(
            "SKIP the_kernel_takes_the_program_and_runs_it_the_same_way: needs root, to load a BPF program"
        );
        return;
    };
    for filter in filters() {
        let insns = assemble(&filter, map.as_raw_fd(), Action::Drop);
        let program = bpf::load_program(&insns).expect("the verifier takes the program");
        for (name, frame, ours) in cases(&filter) {
            if frame.bytes.len() < 14 {
                continue;
            }
            let expected = if ours { Action::Drop } else { Action::Pass };
            let action = bpf::test_run(&program, &frame.bytes).expect("the kernel runs it");
            assert_eq!(action, expected as u32, "{name} with {filter:?}");
        }
    }
}
