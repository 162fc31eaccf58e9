//! What handles ask for, decided. Each request is answered once: at once, or when what it waits for is done.

use std::collections::HashSet;

use super::machine::{Action, Answer, Machine, Ticket};
use super::plan::{Settings, Strategy};
use super::sequence::Sequence;
use super::slots::{Phase, Starter, StopWhy};
use super::spec::Rules;
use crate::ctx::Cause;

/// A request, without what only the engine needs.
#[derive(Debug)]
pub(super) enum Asked {
    Start(Box<Rules>),
    Terminate(String),
    Restart(String),
    Delete(String),
    /// By number: a child that came later under the same name is another one.
    Remove(u64),
    Reconfigure(Box<Settings>, String, Vec<Rules>),
}

impl Machine {
    pub(super) fn asked(&mut self, asked: Asked, ticket: Ticket) {
        let answer = match asked {
            _ if matches!(self.sequence, Sequence::Over) => Some(Answer::NotRunning),
            Asked::Start(rules) => self.start_new(*rules, ticket),
            Asked::Restart(name) => self.start_again(&name, ticket),
            Asked::Terminate(name) => match self.slots.find(&name) {
                Some(seq) => self.terminate(seq, ticket, false),
                None => Some(Answer::NotFound),
            },
            Asked::Remove(seq) if self.slots.get(seq).is_some() => {
                self.terminate(seq, ticket, true)
            }
            Asked::Remove(seq) if seq < self.slots.next_seq() => Some(Answer::Done),
            Asked::Remove(_) => Some(Answer::NotFound),
            Asked::Delete(name) => Some(self.delete(&name)),
            Asked::Reconfigure(settings, name, rules) => {
                Some(self.reconfigure(*settings, &name, rules, ticket))
            }
        };
        if let Some(answer) = answer {
            self.actions.push(Action::Answer(ticket, answer));
        }
    }

    fn start_new(&mut self, rules: Rules, ticket: Ticket) -> Option<Answer> {
        if self.sequence.is_end() {
            return Some(Answer::NotRunning);
        }
        if let Some((field, problem)) = rules.fault() {
            return Some(Answer::Refused(field, problem.to_owned()));
        }
        if rules.significant && self.settings.auto_shutdown.is_none() {
            let problem = "is not set, so no child can be significant";
            return Some(Answer::Refused("auto_shutdown", problem.to_owned()));
        }
        if let Some(slot) = self.slots.find(&rules.name).and_then(|seq| self.slots.get(seq)) {
            return Some(match slot.phase {
                Phase::Stopped | Phase::Restarting => Answer::Stopped,
                _ => Answer::Runs(slot.run),
            });
        }
        let seq = self.slots.add(rules, true, Phase::Queued, self.now);
        if let Some(slot) = self.slots.get_mut(seq) {
            slot.starter = Some(Starter::New(ticket));
        }
        self.actions.push(Action::Added { ticket, seq });
        // While a group is down or coming up, its turn comes after those it may need.
        let alone = self.booted && self.settings.strategy == Strategy::OneForOne;
        if alone || matches!(self.sequence, Sequence::Idle) {
            self.spawn(seq);
        } else {
            self.actions.push(Action::Paint(seq));
        }
        None
    }

    fn start_again(&mut self, name: &str, ticket: Ticket) -> Option<Answer> {
        if self.sequence.is_end() {
            return Some(Answer::NotRunning);
        }
        let Some(seq) = self.slots.find(name) else {
            return Some(Answer::NotFound);
        };
        let slot = self.slots.get_mut(seq)?;
        match slot.phase {
            Phase::Stopped => {
                slot.starter = Some(Starter::Again(ticket));
                // While its group is down or coming up, it comes up with it, in its place.
                if self.sequence.will_start(seq) {
                    self.enter(seq, Phase::Restarting, None);
                } else {
                    self.spawn(seq);
                }
                None
            }
            Phase::Restarting => Some(Answer::Restarting),
            _ => Some(Answer::Runs(slot.run)),
        }
    }

    /// Stops a child, and forgets it if `remove`. Answers when it is down.
    fn terminate(&mut self, seq: u64, ticket: Ticket, remove: bool) -> Option<Answer> {
        let slot = self.slots.get_mut(seq)?;
        slot.remove |= remove;
        match slot.phase {
            Phase::Queued | Phase::Restarting | Phase::Stopped => {
                self.gone_by_request(seq);
                Some(Answer::Done)
            }
            Phase::Starting | Phase::Running | Phase::Stopping { .. } => {
                slot.stoppers.push(ticket);
                self.stop(seq, StopWhy::Asked, Cause::Terminated);
                None
            }
        }
    }

    fn delete(&mut self, name: &str) -> Answer {
        let found = self.slots.find(name).and_then(|seq| Some((seq, self.slots.get(seq)?)));
        match found.map(|(seq, slot)| (seq, slot.phase, slot.run)) {
            None => Answer::NotFound,
            Some((seq, Phase::Stopped, _)) => {
                self.forget(seq);
                Answer::Done
            }
            Some((_, Phase::Restarting, _)) => Answer::Restarting,
            Some((_, _, run)) => Answer::Runs(run),
        }
    }

    /// Other settings and rules from now on. Who runs runs on, in its place in the order; new children come last and are
    /// not started; those that are not named any more stay as they are.
    fn reconfigure(
        &mut self,
        settings: Settings,
        name: &str,
        children: Vec<Rules>,
        ticket: Ticket,
    ) -> Answer {
        if self.sequence.is_end() {
            return Answer::NotRunning;
        }
        if name != self.name {
            return Answer::Refused("name", format!("is `{name}`, not `{}`", self.name));
        }
        if settings.auto_shutdown.is_none() {
            let named: HashSet<_> = children.iter().map(|rules| rules.name.as_ref()).collect();
            let left = self.slots.all().find(|(_, slot)| {
                slot.rules.significant && !named.contains(slot.rules.name.as_ref())
            });
            if let Some((_, slot)) = left {
                let problem = format!("is gone, but child `{}` is significant", slot.rules.name);
                return Answer::Refused("auto_shutdown", problem);
            }
        }
        self.set_settings(settings);
        for (index, rules) in children.into_iter().enumerate() {
            let seq = match self.slots.find(&rules.name) {
                Some(seq) => self.set_rules(seq, rules),
                None => self.slots.add(rules, false, Phase::Stopped, self.now),
            };
            self.actions.push(Action::Rebind { ticket, index, seq });
            self.actions.push(Action::Paint(seq));
        }
        Answer::Done
    }

    fn set_rules(&mut self, seq: u64, rules: Rules) -> u64 {
        let heartbeat = rules.heartbeat;
        self.slots.set_rules(seq, rules);
        if let Some(slot) = self.slots.get_mut(seq) {
            slot.dynamic = false;
            if slot.phase == Phase::Running {
                let look = heartbeat.map(|heartbeat| self.now + heartbeat.within);
                self.slots.set_timer(seq, look);
            }
        }
        seq
    }
}
