//! What audits of hits have found.

use crate::clock::Wall;
use crate::shadow::Shadow;
use crate::shadow::findings::{FindingKind, MAX_SUSPECTS, RouteShadow, ScopeEvidence, StaleChange};
use crate::shadow::observed::AuditOutcome;
use crate::shadow::path;

impl Shadow {
    /// Records an audit.
    pub fn record_audit(&self, route: &RouteShadow, audit: AuditOutcome<'_>, now: Wall) {
        let mut findings = route.findings();
        findings.audited += 1;
        match audit {
            AuditOutcome::Same => route.counters.audits_same.inc(),
            AuditOutcome::Unclear => route.counters.audits_unclear.inc(),
            AuditOutcome::Refused { path, key } => {
                route.counters.audits_refused.inc();
                drop(findings);
                self.record_scope(route, ScopeEvidence::Refusal, (key, path), now);
            }
            AuditOutcome::Stale { path, tags, fetched } => {
                route.counters.audits_stale.inc();
                findings.audited_stale += 1;
                let path = path::remembered(path);
                let after = self.mutations.suspects(Err(fetched), tags, MAX_SUSPECTS);
                let text = match after.first() {
                    Some(write) => {
                        format!("{path} was served stale after {} {}", write.method, write.path)
                    }
                    None => format!(
                        "{path} was served stale, and no write through this sidecar explains it"
                    ),
                };
                findings.change(StaleChange {
                    id: 0,
                    key: 0,
                    path,
                    at: now,
                    age: now.since(fetched),
                    after,
                    responses: 0,
                    tags: tags.into(),
                    late: None,
                });
                drop(findings);
                self.notify(route, FindingKind::Audit, &text, now);
            }
        }
    }
}
