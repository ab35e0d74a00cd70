//! Random calls from a seed, with connections that go away, failed appends and reloads.
//!
//! The fixture checks invariants and hard state after every step; here are those that need the
//! answers: generations never go back, each generation has one leader, a successful sync gives what
//! its leader assigned, and in the end nobody waits.

use super::*;
use crate::base::prng::Prng;

/// What a client remembers.
#[derive(Default)]
struct Client {
    instance_id: Option<String>,
    member_id: String,
    generation: i32,
    is_leader: bool,
    members: Vec<String>,
    /// The call that has no answer yet.
    waits: Option<Token>,
}

struct Fuzz {
    f: Fixture,
    prng: Prng,
    clients: Vec<Client>,
    /// Facts about this life of the group: it ends with the group, or with a reload, which may
    /// bring back the generation before.
    life: Life,
}

#[derive(Default)]
struct Life {
    seed: u64,
    generation: i32,
    leaders: BTreeMap<i32, String>,
    assigned: BTreeMap<(i32, String), Bytes>,
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let f = Fixture::with(|config| {
            config.initial_rebalance_delay_ms = [0, 1_000, 3_000][prng.below(3) as usize];
            config.group_size_max = [3, 100][prng.below(2) as usize];
            config.new_member_join_timeout_ms = [20_000, 300_000][prng.below(2) as usize];
            config.offsets_retention_ms = 120_000;
            config.offsets_retention_check_interval_ms = 50_000;
        });
        let clients = (0..6).map(|n| Client {
            instance_id: (n < 2).then(|| format!("static{n}")),
            ..Default::default()
        });
        Self {
            f,
            prng,
            clients: clients.collect(),
            life: Life::default(),
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.act();
            self.read();
        }
        self.f.sleep(2_000_000);
        self.read();
        assert!(self.f.coordinator.parked.is_empty(), "nobody waits forever");
        for client in &self.clients {
            assert_eq!(client.waits, None, "every call is answered");
        }
    }

    fn act(&mut self) {
        let n = self.prng.below(self.clients.len() as u64) as usize;
        self.f.version = [3, 5, 9][self.prng.below(3) as usize];
        match self.prng.below(100) {
            0..35 => self.join(n),
            35..60 => self.sync(n),
            60..68 => {
                let client = &self.clients[n];
                let (member_id, generation) = (client.member_id.clone(), client.generation);
                self.f.heartbeat(&member_id, generation);
            }
            68..75 => {
                let client = &self.clients[n];
                let (member_id, generation) = (client.member_id.clone(), client.generation);
                self.f.commit(&member_id, generation);
            }
            75..80 => self.leave(n),
            80..84 => {
                if let Some(token) = self.clients[n].waits.take() {
                    self.f.step(|coordinator, _, _| coordinator.forget(token));
                }
            }
            84..86 => self.clients[n].member_id.clear(),
            86..96 => {
                let ms = [1, 500, 3_000, 9_000, 20_000][self.prng.below(5) as usize];
                self.f.sleep(ms);
            }
            96..98 => self.f.fail_append(),
            98 => {
                self.f.delete_group(GROUP);
            }
            _ => self.f.reload(),
        }
    }

    fn join(&mut self, n: usize) {
        if self.clients[n].waits.is_some() {
            return;
        }
        let mut request = join(&self.clients[n].member_id);
        if self.f.version >= 5 {
            request
                .group_instance_id
                .clone_from(&self.clients[n].instance_id);
        }
        request.rebalance_timeout_ms = [5_000, 30_000][self.prng.below(2) as usize];
        let names: &[&str] = match self.prng.below(10) {
            0 => &["sticky", "range"],
            1 => &["range", "sticky"],
            2 => &["sticky"],
            _ => &["range"],
        };
        request.protocols = protocols(names);
        self.clients[n].waits = Some(self.f.join(request));
    }

    fn sync(&mut self, n: usize) {
        let client = &self.clients[n];
        if client.waits.is_some() || client.member_id.is_empty() {
            return;
        }
        let assigned = match client.is_leader {
            true => client.members.clone(),
            false => vec![],
        };
        let mut request = sync(&client.member_id, client.generation, &assigned);
        request.protocol_name = None;
        let version = std::mem::replace(&mut self.f.version, 4);
        let token = self.f.call(|coordinator, now, caller, out| {
            coordinator.sync(now, caller, request, out);
        });
        self.f.version = version;
        self.clients[n].waits = Some(token);
    }

    fn leave(&mut self, n: usize) {
        let leaving = MemberIdentity {
            member_id: self.clients[n].member_id.clone(),
            ..Default::default()
        };
        self.f.left(LeaveGroupRequest {
            group_id: GROUP.into(),
            member_id: leaving.member_id.clone(),
            members: vec![leaving],
        });
    }

    /// Takes the answers that have come.
    fn read(&mut self) {
        for n in 0..self.clients.len() {
            let Some(token) = self.clients[n].waits else {
                continue;
            };
            if self.f.is_parked(token) {
                continue;
            }
            self.clients[n].waits = None;
            match self.f.reply(token) {
                Reply::Join(response) => self.read_join(n, response),
                Reply::Sync(response) if !response.error_code.is_error() => {
                    let client = &self.clients[n];
                    let assigned = (client.generation, client.member_id.clone());
                    if let Some(earlier) = self.life.assigned.get(&assigned) {
                        assert_eq!(*earlier, response.assignment, "an assignment stands");
                    }
                    self.life.assigned.insert(assigned, response.assignment);
                }
                _ => {}
            }
        }
        self.f.replies.clear();
        if self.f.state() == State::Dead || self.life.seed != self.f.seed {
            self.life = Life {
                seed: self.f.seed,
                ..Life::default()
            };
        }
        if self.f.state() != State::Dead {
            let generation = self.f.generation();
            assert!(
                generation >= self.life.generation,
                "generations never go back"
            );
            self.life.generation = generation;
        }
    }

    fn read_join(&mut self, n: usize, response: JoinGroupResponse) {
        let client = &mut self.clients[n];
        match response.error_code {
            ErrorCode::None => {
                client.member_id = response.member_id.clone();
                client.generation = response.generation_id;
                client.is_leader = response.leader == response.member_id;
                let members = response.members.into_iter();
                client.members = members.map(|member| member.member_id).collect();
                if client.is_leader {
                    assert!(
                        client.members.contains(&client.member_id),
                        "a leader is a member"
                    );
                }
                if client.is_leader && !response.skip_assignment {
                    let leader = self.life.leaders.entry(response.generation_id);
                    let leader = leader.or_insert_with(|| response.leader.clone());
                    assert_eq!(*leader, response.leader, "a generation has one leader");
                }
            }
            ErrorCode::MemberIdRequired => client.member_id = response.member_id,
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => client.member_id.clear(),
            _ => {}
        }
    }
}

#[test]
fn random_calls_keep_the_invariants() {
    for seed in 0..300 {
        Fuzz::new(seed).run(300);
    }
}
