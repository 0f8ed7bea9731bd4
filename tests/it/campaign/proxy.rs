//! Stands between the service and the brokers, understands the frames that pass, and breaks what it is told to break.
//!
//! Requests are told apart by their client id, which is the replica's instance name; answers belong to the request with
//! their correlation id. What one connection waits for, everything behind it on that connection waits for: so does TCP.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::frame::{self, Api, Request};

/// On which way a frame is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Request,
    Answer,
}

/// What is done to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It never arrives, and the connection breaks.
    Lose,
    /// It arrives so much later.
    Late(Duration),
    /// It arrives when [`Proxy::release`] says so.
    Hold,
    /// It is held, and the client's connection breaks at once: what it sends again overtakes this one.
    HoldAndCut,
}

/// A fault to come.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) client: String,
    /// `None`: any request.
    pub(super) api: Option<Api>,
    pub(super) way: Way,
    pub(super) act: Act,
    /// How many frames it is for.
    pub(super) times: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// What the rules have met since they were made.
    caught: Vec<Request>,
    /// The errors with which brokers answered requests that had been held.
    late_answers: Vec<i16>,
    /// Goes up at each release: what was held before passes.
    gate: u64,
    /// Requests by client and by transactional id.
    asked: BTreeMap<(String, Api), usize>,
    /// Commits of offsets without a member of the group behind them.
    unguarded: Vec<Request>,
    over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, request: &Request) {
        let mut state = self.state();
        for whose in [&request.client, &request.transaction] {
            *state.asked.entry((whose.clone(), request.api)).or_default() += 1;
        }
        if request.api == Api::TxnOffsetCommit
            && !matches!(&request.member, Some((0.., member)) if !member.is_empty())
        {
            state.unguarded.push(request.clone());
        }
    }

    /// What is to be done to this frame, and the gate at which it would be held.
    fn rule(&self, request: &Request, way: Way) -> Option<(Act, u64)> {
        let mut state = self.state();
        let fits = |rule: &&mut Rule| {
            rule.way == way
                && rule.client == request.client
                && rule.api.is_none_or(|api| api == request.api)
                && 0 < rule.times
        };
        let rule = state.rules.iter_mut().find(fits)?;
        rule.times -= 1;
        let act = rule.act;
        state.caught.push(request.clone());
        Some((act, state.gate))
    }

    fn wait(&self, gate: u64) {
        let shut = |state: &mut State| state.gate == gate && !state.over;
        drop(self.released.wait_while(self.state(), shut));
    }
}

/// The proxy: one address for each broker.
pub(super) struct Proxy {
    shared: Arc<Shared>,
    listeners: Vec<TcpListener>,
    pub(super) addresses: Vec<String>,
}

impl Proxy {
    /// Takes an address for each broker. Who connects before [`Proxy::serve`] waits.
    pub(super) fn bind(brokers: usize) -> Self {
        let listeners: Vec<TcpListener> =
            (0..brokers).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let addresses = listeners.iter().map(address).collect();
        Self { shared: Arc::default(), listeners, addresses }
    }

    /// Passes connections on to these brokers.
    pub(super) fn serve(&mut self, brokers: Vec<String>) {
        for (listener, broker) in std::mem::take(&mut self.listeners).into_iter().zip(brokers) {
            let shared = Arc::clone(&self.shared);
            spawn("proxy", move || {
                for client in listener.incoming() {
                    if shared.state().over {
                        return;
                    }
                    let Ok(client) = client else { continue };
                    let (shared, broker) = (Arc::clone(&shared), broker.clone());
                    spawn("proxy-out", move || {
                        // A broker that is down: the client's connection is closed too.
                        if let Ok(server) = TcpStream::connect(broker) {
                            Link::run(client, server, shared);
                        }
                    });
                }
            });
        }
    }

    /// From now on, with what was caught before forgotten.
    pub(super) fn rule(&self, rule: Rule) {
        let mut state = self.shared.state();
        state.caught.clear();
        state.late_answers.clear();
        state.rules = vec![rule];
    }

    /// What the rule has met.
    pub(super) fn caught(&self) -> Vec<Request> {
        self.shared.state().caught.clone()
    }

    /// Lets everything go that is held, and ends the rules.
    pub(super) fn release(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.gate += 1;
        self.shared.released.notify_all();
    }

    /// How brokers answered the requests that had been held.
    pub(super) fn late_answers(&self) -> Vec<i16> {
        self.shared.state().late_answers.clone()
    }

    /// How many such requests came from a client, or for a transactional id.
    pub(super) fn asked(&self, whose: &str, api: Api) -> usize {
        self.shared.state().asked.get(&(whose.to_owned(), api)).copied().unwrap_or(0)
    }

    /// Fails where offsets were committed without a generation and a member: nothing fences such a commit.
    #[track_caller]
    pub(super) fn assert_guarded(&self) {
        let state = self.shared.state();
        assert!(state.unguarded.is_empty(), "commits that nothing fences: {:?}", state.unguarded);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.released.notify_all();
        for address in &self.addresses {
            // Wakes the listener, so that it sees that it is over.
            drop(TcpStream::connect(address));
        }
    }
}

/// One connection of a client, and the proxy's own to the broker.
struct Link {
    client: TcpStream,
    server: TcpStream,
    shared: Arc<Shared>,
    /// What is not answered yet, by correlation id, and whether it was held.
    open: Mutex<HashMap<i32, (Request, bool)>>,
}

impl Link {
    fn run(client: TcpStream, server: TcpStream, shared: Arc<Shared>) {
        for stream in [&client, &server] {
            drop(stream.set_nodelay(true));
        }
        let link = Arc::new(Self { client, server, shared, open: Mutex::default() });
        let other = Arc::clone(&link);
        spawn("proxy-back", move || {
            drop(other.answers());
            drop(other.client.shutdown(Shutdown::Both));
        });
        drop(link.requests());
        // What the broker still has to say is read to its end.
        drop(link.server.shutdown(Shutdown::Write));
    }

    fn requests(&self) -> io::Result<()> {
        loop {
            let frame = frame::read(&self.client)?;
            let Some(request) = Request::parse(&frame) else { return self.cut() };
            self.shared.saw(&request);
            let rule = self.shared.rule(&request, Way::Request);
            let held = matches!(rule, Some((Act::Hold | Act::HoldAndCut, _)));
            let correlation = request.correlation;
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.insert(correlation, (request, held));
            drop(open);
            if !self.obey(rule) {
                return self.cut();
            }
            frame::write(&self.server, &frame)?;
        }
    }

    fn answers(&self) -> io::Result<()> {
        let mut gone = false;
        loop {
            let frame = frame::read(&self.server)?;
            let correlation = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = correlation.and_then(|correlation| open.remove(&correlation));
            drop(open);
            let Some((request, held)) = asked else { return self.cut() };
            if held && let Some(error) = request.end_error(&frame) {
                self.shared.state().late_answers.push(error);
            }
            if !self.obey(self.shared.rule(&request, Way::Answer)) {
                return self.cut();
            }
            // A client that has left does not end what the broker is still sent.
            gone |= !gone && frame::write(&self.client, &frame).is_err();
        }
    }

    /// Whether the frame passes.
    fn obey(&self, rule: Option<(Act, u64)>) -> bool {
        match rule {
            None => (),
            Some((Act::Lose, _)) => return false,
            Some((Act::Late(pause), _)) => std::thread::sleep(pause),
            Some((Act::Hold, gate)) => self.shared.wait(gate),
            Some((Act::HoldAndCut, gate)) => {
                drop(self.client.shutdown(Shutdown::Both));
                self.shared.wait(gate);
            }
        }
        true
    }

    fn cut(&self) -> io::Result<()> {
        self.client.shutdown(Shutdown::Both)?;
        self.server.shutdown(Shutdown::Both)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().name(name.to_owned());
    drop(builder.spawn(work).unwrap());
}
