//! A client's connection: dials, frames, matches answers to requests. A request without an answer
//! after its time, or a connection that the broker closes without a reason, is a failure of the
//! broker.

use super::Scene;
use crate::base::Mono;
use crate::sim::network::End;
use crate::sim::world::World;
use crate::wire::frame::{decode_response_header, encode_request, split_frame};
use crate::wire::{Message, Reader, Request};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// What every request gets on top of the time that it may wait by itself.
const ANSWER_MS: i64 = 2_000;

/// Time between two attempts to connect.
const RETRY_MS: i64 = 20;

/// Largest response accepted.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    correlation_id: i32,
    key: i16,
    version: i16,
    by: Mono,
}

/// What has happened on a link.
#[derive(Debug)]
pub enum Heard {
    /// The answer to the oldest request.
    Answer(Answer),
    /// The connection is gone, with everything under way.
    Broken,
}

/// An encoded response body.
#[derive(Debug)]
pub struct Answer {
    version: i16,
    reader: Reader,
}

impl Answer {
    /// As the response to the request that was sent. What cannot be decoded is the broker's fault.
    pub fn decode<R: Request>(mut self, scene: &mut Scene<'_>) -> Option<R::Response> {
        match R::Response::decode(&mut self.reader, self.version) {
            Ok(response) => Some(response),
            Err(error) => {
                let name = R::Response::NAME;
                scene.checker.fail(format!("a bad {name}: {error}"));
                None
            }
        }
    }
}

/// A connection to the broker, or the wish for one.
#[derive(Debug)]
pub struct Link {
    name: String,
    connection: Option<u64>,
    /// The broker's run that was dialled.
    run: u64,
    inbox: BytesMut,
    asked: VecDeque<Asked>,
    correlation_id: i32,
    dial_at: Mono,
    /// The broker may close it: requests without answers can fail.
    may_close: bool,
}

impl Link {
    /// Not connected yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            connection: None,
            run: 0,
            inbox: BytesMut::new(),
            asked: VecDeque::new(),
            correlation_id: 0,
            dial_at: Mono::default(),
            may_close: false,
        }
    }

    /// The client's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The broker may close the connection without being asked.
    pub fn allow_close(&mut self) {
        self.may_close = true;
    }

    /// Number of requests that wait for their answer.
    pub fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// True if the broker has not been restarted since this was dialled.
    pub fn is_current(&self, world: &World) -> bool {
        self.run == world.run
    }

    /// True if there is a connection, dialled or made.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// True if connected; dials if it is time.
    pub fn is_up(&mut self, scene: &mut Scene<'_>) -> bool {
        if self.connection.is_none() && self.dial_at <= scene.world.now {
            self.connection = Some(scene.world.dial());
            self.run = scene.world.run;
        }
        self.connection.is_some()
    }

    /// Sends a request that may take `wait_ms` by itself.
    pub fn ask<R: Request>(
        &mut self,
        scene: &mut Scene<'_>,
        version: i16,
        request: &R,
        wait_ms: i64,
    ) {
        let slack_ms = self.connection.map_or(0, |id| scene.world.slack_ms(id));
        let by = scene.world.now.plus_ms(wait_ms + ANSWER_MS + slack_ms);
        let correlation_id = self.send(scene, version, request);
        self.asked.push_back(Asked {
            correlation_id,
            key: R::KEY,
            version,
            by,
        });
    }

    /// Sends a request that has no answer.
    pub fn tell<R: Request>(&mut self, scene: &mut Scene<'_>, version: i16, request: &R) {
        self.send(scene, version, request);
    }

    fn send<R: Request>(&mut self, scene: &mut Scene<'_>, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        scene.checker.operations += 1;
        let name = Some(self.name.as_str().into());
        let frame = encode_request(self.correlation_id, version, name, request);
        let bytes = frame.bytes.freeze();
        scene.world.note(format_args!(
            "{} asks {} v{version} {}",
            self.name,
            R::NAME,
            bytes.len()
        ));
        if let Some(connection) = self.connection {
            scene.world.send(connection, bytes);
        }
        self.correlation_id
    }

    /// What has happened, one at a time.
    pub fn hear(&mut self, scene: &mut Scene<'_>) -> Option<Heard> {
        let connection = self.connection?;
        if let Some(asked) = self.asked.front()
            && asked.by < scene.world.now
        {
            let what = format!("{} got no answer to {asked:?}", self.name);
            scene.checker.fail(what);
        }
        if let Some(heard) = self.next_answer(scene) {
            return Some(heard);
        }
        if !scene.world.is_readable(connection) {
            return None;
        }
        match scene.world.receive(connection) {
            Ok(bytes) => {
                self.inbox.extend_from_slice(&bytes);
                self.next_answer(scene)
            }
            Err(end) => {
                let excused = self.may_close || scene.world.faults.disk_may_fail;
                if end == End::Broker && !excused {
                    let what = format!("the broker closed the connection of {}", self.name);
                    scene.checker.fail(what);
                }
                Some(self.hang_up(scene))
            }
        }
    }

    /// Ends the connection from this side; what is under way may still be done.
    pub fn hang_up(&mut self, scene: &mut Scene<'_>) -> Heard {
        let now = scene.world.now;
        if let Some(connection) = self.connection.take() {
            scene.world.hang_up(connection);
        }
        let waiting = self.asked.len();
        let name = &self.name;
        scene.world.note(format_args!(
            "{name} is disconnected with {waiting} requests under way"
        ));
        self.inbox.clear();
        self.asked.clear();
        self.dial_at = now.plus_ms(1 + scene.world.prng.below(RETRY_MS as u64) as i64);
        Heard::Broken
    }

    fn next_answer(&mut self, scene: &mut Scene<'_>) -> Option<Heard> {
        let frame = match split_frame(&mut self.inbox, FRAME_BYTES_MAX) {
            Ok(frame) => frame?,
            Err(error) => {
                let what = format!("{} got a bad frame: {error}", self.name);
                scene.checker.fail(what);
                return Some(self.hang_up(scene));
            }
        };
        Some(self.match_answer(scene, frame))
    }

    fn match_answer(&mut self, scene: &mut Scene<'_>, frame: Bytes) -> Heard {
        let length = frame.len();
        let mut reader = Reader::new(frame);
        let Some(asked) = self.asked.pop_front() else {
            let what = format!("{} got an answer to nothing", self.name);
            scene.checker.fail(what);
            return self.hang_up(scene);
        };
        let got = decode_response_header(&mut reader, asked.key, asked.version);
        if got != Ok(asked.correlation_id) {
            let what = format!("{} got {got:?} as the answer to {asked:?}", self.name);
            scene.checker.fail(what);
        }
        let (name, key) = (&self.name, asked.key);
        scene.world.note(format_args!(
            "{name} gets its answer, api {key}, {length} bytes"
        ));
        Heard::Answer(Answer {
            version: asked.version,
            reader,
        })
    }

    /// True if [`Link::hear`] would tell something.
    pub fn is_awake(&self, world: &World) -> bool {
        self.connection.is_some_and(|id| world.is_readable(id))
    }

    /// When it wants to be looked at.
    pub fn next_deadline(&self) -> Mono {
        match (self.connection, self.asked.front()) {
            (None, _) => self.dial_at,
            // Just after the time, to complain.
            (Some(_), Some(asked)) => Mono(asked.by.0 + 1),
            (Some(_), None) => Mono(u64::MAX),
        }
    }
}
