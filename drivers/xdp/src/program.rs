//! The XDP program: which frames of an interface come to the socket, and which go on to the kernel.
//!
//! To the socket go, by the receive queue that they came in on:
//!
//! * UDP over IPv4 without options and fragments, or over IPv6 without extension headers, for our MAC, address and port;
//! * ARP whose target is our IPv4 address;
//! * neighbour solicitations for our IPv6 address, and advertisements sent to it.
//!
//! Everything else passes to the kernel, which may use the interface with addresses of its own; so do frames of a queue
//! that has no socket. Our address is therefore one that the kernel does not have.
//!
//! The program is written here instruction by instruction: it is short, and a compiler for it would be a library or a
//! tool that the build does not need. Multi-byte fields are turned to host order before they are compared, so that the
//! numbers below are those of the standards.
//!
//! *Source*: instruction encoding: Documentation/bpf/standardization/instruction-set.rst of the Linux kernel; fields: RFC
//! 826 (ARP), RFC 791 (IPv4), RFC 8200 (IPv6), RFC 768 (UDP), RFC 4861 (neighbours), IEEE 802.1Q (VLAN).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use ionian_ether::MacAddr;

/// What is ours on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filter {
    /// Destination of frames to us.
    pub(crate) mac: MacAddr,
    /// Our address and UDP port.
    pub(crate) local: SocketAddr,
    /// Frames carry this VLAN's tag, 1 to 4094; without it they carry none.
    pub(crate) vlan: Option<u16>,
}

/// What the kernel does with a frame; `enum xdp_action` of linux/bpf.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Action {
    /// Drops it. The program that ships never says so; tests do, to tell "ours" from "not ours" without a socket.
    #[cfg(test)]
    Drop = 1,
    /// Hands it to the kernel's stack.
    Pass = 2,
}

// On machines of the other order the two registers of an instruction change places.
const _: () = assert!(cfg!(target_endian = "little"));

/// One instruction, `struct bpf_insn`: opcode, registers (destination in the low four bits), offset, immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// `bpf_redirect_map`, by its number in linux/bpf.h.
pub(crate) const HELPER_REDIRECT_MAP: i32 = 51;
/// Offsets in `struct xdp_md`.
pub(crate) const CTX_DATA: i16 = 0;
pub(crate) const CTX_DATA_END: i16 = 4;
pub(crate) const CTX_RX_QUEUE_INDEX: i16 = 16;

/// Opcodes used: class, size or source, and operation.
pub(crate) mod op {
    pub(crate) const LDX_W: u8 = 0x61;
    pub(crate) const LDX_H: u8 = 0x69;
    pub(crate) const LDX_B: u8 = 0x71;
    /// First half of a load of 64 bits; with source register 1 the descriptor of a map.
    pub(crate) const LD_IMM64: u8 = 0x18;
    pub(crate) const MOV64_IMM: u8 = 0xb7;
    pub(crate) const MOV64_REG: u8 = 0xbf;
    pub(crate) const ADD64_IMM: u8 = 0x07;
    pub(crate) const AND32_IMM: u8 = 0x54;
    /// To big-endian, which from a field in network order is to host order.
    pub(crate) const END_TO_BE: u8 = 0xdc;
    pub(crate) const JA: u8 = 0x05;
    pub(crate) const JGT64_REG: u8 = 0x2d;
    pub(crate) const JEQ32_IMM: u8 = 0x16;
    pub(crate) const JNE32_IMM: u8 = 0x56;
    pub(crate) const CALL: u8 = 0x85;
    pub(crate) const EXIT: u8 = 0x95;
}

/// Where a jump goes. Places are only ever ahead of the jump: the program has no loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    NotOurMac,
    Type,
    Arp,
    Icmp,
    Solicitation,
    Redirect,
    Pass,
}

/// Instructions under construction, with the jumps whose places are not known yet.
#[derive(Default)]
struct Assembler {
    insns: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

/// Registers: results and arguments as the calling convention has them.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
/// The value being looked at.
const VALUE: u8 = 4;
/// Start and end of the frame.
const DATA: u8 = 2;
const DATA_END: u8 = 3;
/// The context, kept over the whole program.
const CTX: u8 = 6;
/// 1 if the frame is for our MAC, 0 if it is for a group.
const UNICAST: u8 = 7;

impl Assembler {
    fn emit(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        self.insns.push(Insn {
            code,
            registers: destination | source << 4,
            offset,
            immediate,
        });
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.insns.len()));
    }

    fn jump(&mut self, code: u8, destination: u8, source: u8, immediate: u32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.emit(code, destination, source, 0, immediate.cast_signed());
    }

    /// Loads a field of 1, 2 or 4 bytes at `at` of the frame, in host order.
    fn field(&mut self, at: i16, bytes: i32) {
        let code = match bytes {
            1 => op::LDX_B,
            2 => op::LDX_H,
            _ => op::LDX_W,
        };
        self.emit(code, VALUE, DATA, at, 0);
        if bytes > 1 {
            self.emit(op::END_TO_BE, VALUE, 0, 0, bytes * 8);
        }
    }

    /// Goes on only if the field has this value.
    fn require(&mut self, at: i16, bytes: i32, value: u32, otherwise: Label) {
        self.field(at, bytes);
        self.jump(op::JNE32_IMM, VALUE, 0, value, otherwise);
    }

    /// Goes on only if the frame has this many bytes; the kernel's verifier then permits access to them.
    fn require_len(&mut self, bytes: i16) {
        self.emit(op::MOV64_REG, VALUE, DATA, 0, 0);
        self.emit(op::ADD64_IMM, VALUE, 0, 0, bytes.into());
        self.jump(op::JGT64_REG, VALUE, DATA_END, 0, Label::Pass);
    }

    fn require_unicast(&mut self) {
        self.jump(op::JEQ32_IMM, UNICAST, 0, 0, Label::Pass);
    }

    fn require_ipv6(&mut self, at: i16, address: Ipv6Addr) {
        for (word, offset) in words(address).into_iter().zip((0..).step_by(4)) {
            self.require(at + offset, 4, word, Label::Pass);
        }
    }

    /// Resolves the jumps.
    fn finish(mut self) -> Vec<Insn> {
        for (from, label) in self.jumps {
            let place = self.places.iter().find(|(placed, _)| *placed == label);
            let (_, to) = place.expect("every label that is jumped to is placed");
            let distance = to.checked_sub(from + 1).expect("jumps go ahead");
            self.insns[from].offset = i16::try_from(distance).expect("the program is short");
        }
        self.insns
    }
}

/// An IPv6 address as four numbers.
fn words(address: Ipv6Addr) -> [u32; 4] {
    let segments = address.segments();
    std::array::from_fn(|word| {
        u32::from(segments[2 * word]) << 16 | u32::from(segments[2 * word + 1])
    })
}

/// Bytes of an Ethernet header, and of a VLAN's tag in it.
const ETHERNET_BYTES: i16 = 14;
const VLAN_BYTES: i16 = 4;

/// Writes the program. `map` is the descriptor of the map from queues to sockets; `missing` what becomes of our frames
/// where the map has no socket for the queue.
pub(crate) fn assemble(filter: &Filter, map: RawFd, missing: Action) -> Vec<Insn> {
    let mut code = Assembler::default();
    let tag_bytes = if filter.vlan.is_some() { VLAN_BYTES } else { 0 };
    let network = ETHERNET_BYTES + tag_bytes;
    code.emit(op::MOV64_REG, CTX, R1, 0, 0);
    code.emit(op::LDX_W, DATA, CTX, CTX_DATA, 0);
    code.emit(op::LDX_W, DATA_END, CTX, CTX_DATA_END, 0);
    // An ARP packet is as long as the headers of IPv4 and UDP: the least that can be ours.
    code.require_len(network + 28);

    let [a, b, c, d, e, f] = filter.mac.0.map(u32::from);
    code.emit(op::MOV64_IMM, UNICAST, 0, 0, 0);
    code.require(0, 4, a << 24 | b << 16 | c << 8 | d, Label::NotOurMac);
    code.require(4, 2, e << 8 | f, Label::NotOurMac);
    code.emit(op::MOV64_IMM, UNICAST, 0, 0, 1);
    code.jump(op::JA, 0, 0, 0, Label::Type);
    code.place(Label::NotOurMac);
    // The lowest bit of the first byte says that the frame is for a group.
    code.field(0, 1);
    code.emit(op::AND32_IMM, VALUE, 0, 0, 1);
    code.jump(op::JEQ32_IMM, VALUE, 0, 0, Label::Pass);

    code.place(Label::Type);
    if let Some(vlan) = filter.vlan {
        code.require(12, 2, 0x8100, Label::Pass);
        code.field(14, 2);
        code.emit(op::AND32_IMM, VALUE, 0, 0, 0x0fff);
        code.jump(op::JNE32_IMM, VALUE, 0, vlan.into(), Label::Pass);
    }
    match filter.local.ip() {
        IpAddr::V4(address) => ipv4(&mut code, network, address, filter.local.port()),
        IpAddr::V6(address) => ipv6(&mut code, network, address, filter.local.port()),
    }

    code.place(Label::Redirect);
    code.emit(op::LDX_W, R2, CTX, CTX_RX_QUEUE_INDEX, 0);
    code.emit(op::LD_IMM64, R1, 1, 0, map);
    code.emit(0, 0, 0, 0, 0);
    code.emit(op::MOV64_IMM, R3, 0, 0, (missing as u32).cast_signed());
    code.emit(op::CALL, 0, 0, 0, HELPER_REDIRECT_MAP);
    code.emit(op::EXIT, 0, 0, 0, 0);
    code.place(Label::Pass);
    code.emit(op::MOV64_IMM, R0, 0, 0, (Action::Pass as u32).cast_signed());
    code.emit(op::EXIT, 0, 0, 0, 0);
    code.finish()
}

fn ipv4(code: &mut Assembler, network: i16, address: Ipv4Addr, port: u16) {
    code.field(network - 2, 2);
    code.jump(op::JEQ32_IMM, VALUE, 0, 0x0806, Label::Arp);
    code.jump(op::JNE32_IMM, VALUE, 0, 0x0800, Label::Pass);
    code.require_unicast();
    // Version 4, a header of five words.
    code.require(network, 1, 0x45, Label::Pass);
    // Neither "more fragments" nor an offset.
    code.field(network + 6, 2);
    code.emit(op::AND32_IMM, VALUE, 0, 0, 0x3fff);
    code.jump(op::JNE32_IMM, VALUE, 0, 0, Label::Pass);
    code.require(network + 9, 1, 17, Label::Pass);
    code.require(network + 16, 4, address.to_bits(), Label::Pass);
    code.require(network + 22, 2, port.into(), Label::Pass);
    code.jump(op::JA, 0, 0, 0, Label::Redirect);
    code.place(Label::Arp);
    code.require(network + 24, 4, address.to_bits(), Label::Pass);
}

fn ipv6(code: &mut Assembler, network: i16, address: Ipv6Addr, port: u16) {
    code.require(network - 2, 2, 0x86dd, Label::Pass);
    // The header and that of UDP.
    code.require_len(network + 48);
    code.field(network + 6, 1);
    code.jump(op::JEQ32_IMM, VALUE, 0, 58, Label::Icmp);
    code.jump(op::JNE32_IMM, VALUE, 0, 17, Label::Pass);
    code.require_unicast();
    code.require_ipv6(network + 24, address);
    code.require(network + 42, 2, port.into(), Label::Pass);
    code.jump(op::JA, 0, 0, 0, Label::Redirect);
    code.place(Label::Icmp);
    code.field(network + 40, 1);
    code.jump(op::JEQ32_IMM, VALUE, 0, 135, Label::Solicitation);
    code.jump(op::JNE32_IMM, VALUE, 0, 136, Label::Pass);
    code.require_unicast();
    code.require_ipv6(network + 24, address);
    code.jump(op::JA, 0, 0, 0, Label::Redirect);
    code.place(Label::Solicitation);
    // Up to the end of the target.
    code.require_len(network + 64);
    code.require_ipv6(network + 48, address);
}

#[cfg(test)]
mod tests;
