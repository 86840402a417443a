//! The packet fabric: a thread that holds the TUN device of each host and carries packets between them, each link by its
//! own rule. It stands in for netem, which many kernels lack, and follows a seed.
//!
//! Must never: change a packet. Cuts are none of its business: hosts drop by themselves what is cut (`cuts`).

pub mod link;
pub mod tun;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use env::{Clock, SystemClock};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use link::{Count, Link, Rule};

/// Bytes of a packet at most, as on most networks.
pub const MTU: usize = 1500;
/// Packets taken from one host before the next has its turn.
const BATCH: usize = 64;
/// How long the thread waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// The port that a packet is for: `10.77.0.N` is port `N - 1`.
pub fn port_of(packet: &[u8]) -> Option<usize> {
    let address = packet.get(16..20)?;
    let v4 = packet[0] >> 4 == 4;
    (v4 && address[..3] == NET && address[3] > 0).then(|| usize::from(address[3]) - 1)
}

/// The first bytes of all addresses.
const NET: [u8; 3] = [10, 77, 0];

/// The address of a port.
pub fn address(port: usize) -> String {
    format!("{}.{}.{}.{}", NET[0], NET[1], NET[2], port + 1)
}

struct State {
    rules: Vec<Rule>,
    links: Vec<Link>,
}

/// The handle. Packets stop when it is dropped.
pub struct Fabric {
    ports: usize,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fabric {
    /// Carries packets between these devices, the first of which is port 0.
    pub fn start(seed: u64, devices: Vec<File>) -> io::Result<Fabric> {
        let ports = devices.len();
        let links = (0..ports * ports).map(|at| Link::new(seed, at / ports, at % ports));
        let state = Arc::new(Mutex::new(State {
            rules: vec![Rule::default(); ports * ports],
            links: links.collect(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = Carrier {
            devices,
            state: state.clone(),
            stop: stop.clone(),
            clock: SystemClock::default(),
            waiting: BinaryHeap::new(),
            number: 0,
        };
        let thread = std::thread::Builder::new()
            .name("fabric".into())
            .spawn(move || carrier.run())?;
        Ok(Fabric {
            ports,
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// Sets the rule of one direction of a link.
    pub fn set(&self, from: usize, to: usize, rule: Rule) {
        self.state.lock().rules[from * self.ports + to] = rule;
    }

    /// What all links have done so far.
    pub fn total(&self) -> Count {
        let state = self.state.lock();
        state.links.iter().fold(Count::default(), |sum, link| Count {
            passed: sum.passed + link.count.passed,
            lost: sum.lost + link.count.lost,
            twice: sum.twice + link.count.twice,
            held: sum.held + link.count.held,
            delayed: sum.delayed + link.count.delayed,
        })
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// When, in which order among equals, to which port, what.
type Waiting = Reverse<(u64, u64, usize, Vec<u8>)>;

struct Carrier {
    devices: Vec<File>,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    clock: SystemClock,
    waiting: BinaryHeap<Waiting>,
    number: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut packet = vec![0; MTU + 100];
        while !self.stop.load(Ordering::Relaxed) {
            for from in self.readable() {
                for _ in 0..BATCH {
                    let Ok(bytes) = (&self.devices[from]).read(&mut packet) else {
                        break;
                    };
                    self.carry(from, &packet[..bytes]);
                }
            }
            self.deliver();
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.now().as_micros() as u64
    }

    /// Ports with something to read, at the latest when something is due.
    fn readable(&self) -> Vec<usize> {
        let wait = match self.waiting.peek() {
            Some(Reverse((due_us, ..))) => {
                Duration::from_micros(due_us.saturating_sub(self.now_us())).min(LOOK)
            }
            None => LOOK,
        };
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut polled: Vec<PollFd<'_>> = self
            .devices
            .iter()
            .map(|device| PollFd::new(device, PollFlags::IN))
            .collect();
        if !matches!(poll(&mut polled, Some(&limit)), Ok(1..)) {
            return Vec::new();
        }
        let ready = polled.iter().enumerate();
        ready
            .filter(|(_, polled)| polled.revents().contains(PollFlags::IN))
            .map(|(at, _)| at)
            .collect()
    }

    fn carry(&mut self, from: usize, packet: &[u8]) {
        let Some(to) = port_of(packet).filter(|to| *to < self.devices.len()) else {
            return;
        };
        let now_us = self.now_us();
        let fate = {
            let mut state = self.state.lock();
            let at = from * self.devices.len() + to;
            let rule = state.rules[at];
            state.links[at].decide(&rule, packet.len(), now_us)
        };
        for due_us in [fate.first_us, fate.second_us].into_iter().flatten() {
            if due_us <= now_us {
                self.hand_over(to, packet);
                continue;
            }
            self.number += 1;
            self.waiting
                .push(Reverse((due_us, self.number, to, packet.to_vec())));
        }
    }

    fn deliver(&mut self) {
        let now_us = self.now_us();
        while let Some(Reverse((due_us, ..))) = self.waiting.peek() {
            if *due_us > now_us {
                return;
            }
            if let Some(Reverse((_, _, to, packet))) = self.waiting.pop() {
                self.hand_over(to, &packet);
            }
        }
    }

    /// A host that cannot take a packet loses it, as on any network.
    fn hand_over(&self, to: usize, packet: &[u8]) {
        let _ = (&self.devices[to]).write(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_to_ports() {
        let mut packet = [0_u8; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 77, 0, 3]);
        assert_eq!(port_of(&packet), Some(2));
        assert_eq!(address(2), "10.77.0.3");
        packet[18] = 1;
        assert_eq!(port_of(&packet), None);
        packet[0] = 0x60;
        assert_eq!(port_of(&packet), None);
        assert_eq!(port_of(&[0x45; 10]), None);
    }
}
