//! Serving the requests of handles.
//!
//! Owns nothing. Each request is answered when it is done; an answer nobody waits for is dropped, what was asked happens.

use super::engine::{Engine, Group, Started};
use super::handle::{ControlError, StartError};
use super::report::ExitContext;
use super::shared::{ChildState, Request};
use super::spec::Spec;
use crate::ctx::Cause;

impl Engine {
    pub(super) async fn on_request(&mut self, request: Request) {
        // Whoever asked may have gone: an answer nobody takes is dropped.
        match request {
            Request::Start(child, reply) => {
                let answer = self.start_dynamic(*child).await;
                drop(reply.send(answer));
            }
            Request::Restart(name, reply) => {
                let answer = self.restart_by_request(&name).await;
                drop(reply.send(answer));
            }
            Request::Delete(name, reply) => {
                let answer = self.stopped(&name).map(|seq| self.forget(seq));
                drop(reply.send(answer));
            }
            request @ Request::Terminate(..) => self.on_terminate(request).await,
        }
    }

    async fn start_dynamic(&mut self, child: Spec) -> Result<(), StartError> {
        if child.name.is_empty() {
            return Err(StartError::BadSpec("child.name"));
        }
        if let Some(slot) = self.slots.find(&child.name).and_then(|seq| self.slots.get(seq)) {
            let stopped = slot.state == ChildState::Stopped || slot.state == ChildState::Restarting;
            return Err(if stopped {
                StartError::AlreadyPresent
            } else {
                StartError::AlreadyStarted
            });
        }
        let seq = self.slots.add(child, true);
        match self.start(seq).await {
            Started::Up => Ok(()),
            Started::Failed(reason) => {
                self.reap(seq, reason.clone(), ExitContext::Start, false).await;
                self.forget(seq);
                Err(StartError::Failed(reason))
            }
            Started::Interrupted => {
                self.forget(seq);
                Err(StartError::NotRunning)
            }
        }
    }

    async fn restart_by_request(&mut self, name: &str) -> Result<(), ControlError> {
        let seq = self.stopped(name)?;
        if let Some(slot) = self.slots.get_mut(seq) {
            slot.held = false;
        }
        match self.start(seq).await {
            Started::Up => Ok(()),
            Started::Failed(reason) => {
                self.reap(seq, reason.clone(), ExitContext::Start, false).await;
                Err(ControlError::Failed(reason))
            }
            Started::Interrupted => Err(ControlError::NotRunning),
        }
    }

    fn stopped(&self, name: &str) -> Result<u64, ControlError> {
        let seq = self.slots.find(name).ok_or(ControlError::NotFound)?;
        match self.slots.get(seq).map(|slot| slot.state) {
            Some(ChildState::Stopped) => Ok(seq),
            Some(ChildState::Restarting) => Err(ControlError::Restarting),
            Some(_) => Err(ControlError::Running),
            None => Err(ControlError::NotFound),
        }
    }

    pub(super) async fn on_terminate(&mut self, request: Request) {
        let Request::Terminate(name, reply) = request else {
            return;
        };
        let answer = match self.slots.find(&name) {
            None => Err(ControlError::NotFound),
            Some(seq) => {
                self.pending.retain(|pending| pending.what != Group::One(seq));
                self.stop_together(&[seq], &Cause::Terminated).await;
                if let Some(slot) = self.slots.get_mut(seq) {
                    slot.held = true;
                }
                self.forget_temporary(seq);
                Ok(())
            }
        };
        drop(reply.send(answer));
    }
}
