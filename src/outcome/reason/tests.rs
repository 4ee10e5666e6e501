//! Tests of the reasons: each has a word, a subject and a status of its own.

use std::collections::BTreeSet;

use super::*;

#[test]
fn labels_are_snake_case_and_differ() {
    let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
    for label in &labels {
        assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{label}");
    }
    assert_eq!(Reason::NoRoute.label(), "no_route");
    assert_eq!(Reason::StaleWhileRevalidate.label(), "stale_while_revalidate");
    assert_eq!(Reason::VaryStar.label(), "vary_star");
}

#[test]
fn reasons_are_told_in_whole_sentences() {
    for reason in Reason::ALL {
        let texts = [Some(reason.meaning()), reason.remedy()];
        for text in texts.into_iter().flatten() {
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{reason:?}: {text}");
            assert!(text.ends_with('.') && !text.contains("  "), "{reason:?}: {text}");
        }
    }
}

#[test]
fn discriminants_count_the_table() {
    for (at, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at);
    }
}

fn statuses() -> Vec<(Reason, u16)> {
    Reason::ALL.iter().map(|reason| (*reason, reason.failure_status().as_u16())).collect()
}

#[test]
fn every_reason_has_its_status_of_failure() {
    assert_eq!(
        statuses(),
        [
            (Reason::NoRoute, 500),
            (Reason::UnmetMatch, 500),
            (Reason::Method, 500),
            (Reason::ModeOff, 500),
            (Reason::SwitchedOff, 500),
            (Reason::Shadow, 500),
            (Reason::NotInShare, 500),
            (Reason::MissingField, 500),
            (Reason::UnkeyedHeader, 500),
            (Reason::WithheldHeader, 500),
            (Reason::FillRefused, 500),
            (Reason::AmbiguousPath, 500),
            (Reason::AmbiguousQuery, 500),
            (Reason::AmbiguousMatch, 500),
            (Reason::AmbiguousCookie, 500),
            (Reason::UnverifiedToken, 500),
            (Reason::TokenKeysUnavailable, 500),
            (Reason::SessionRenewal, 500),
            (Reason::RequestBody, 500),
            (Reason::AmbiguousBody, 500),
            (Reason::BodyTooLarge, 500),
            (Reason::Range, 500),
            (Reason::Precondition, 500),
            (Reason::Upgrade, 500),
            (Reason::ConnectionLogin, 500),
            (Reason::NoHost, 500),
            (Reason::MethodOverride, 500),
            (Reason::DeclaredWrite, 500),
            (Reason::PurgeRequest, 500),
            (Reason::PurgeRefused, 403),
            (Reason::MutationPending, 500),
            (Reason::Handover, 500),
            (Reason::CacheUnavailable, 503),
            (Reason::RequestNoStore, 500),
            (Reason::KeyTooLong, 500),
            (Reason::NotStored, 500),
            (Reason::Expired, 500),
            (Reason::StaleWhileRevalidate, 500),
            (Reason::Purged, 500),
            (Reason::NotAdmitted, 500),
            (Reason::CredentialUnconfirmed, 500),
            (Reason::RequestNoCache, 500),
            (Reason::OnlyIfCached, 504),
            (Reason::VaryMiss, 500),
            (Reason::NoStore, 500),
            (Reason::Private, 500),
            (Reason::NoCache, 500),
            (Reason::NoFreshness, 500),
            (Reason::StaleOnArrival, 500),
            (Reason::SetCookie, 500),
            (Reason::SessionChanged, 500),
            (Reason::GuestsDiffer, 500),
            (Reason::GuestsUncompared, 500),
            (Reason::VaryStar, 500),
            (Reason::Status, 500),
            (Reason::Authorization, 500),
            (Reason::TooLarge, 500),
            (Reason::Truncated, 500),
            (Reason::Unframed, 500),
            (Reason::ContentCoding, 500),
            (Reason::ClientGone, 499),
            (Reason::EventStream, 500),
            (Reason::Trailers, 500),
            (Reason::TooManyTags, 500),
            (Reason::TagsUnread, 500),
            (Reason::TagBodyTooLarge, 500),
            (Reason::PurgedDuringFill, 500),
            (Reason::StoreFailed, 500),
            (Reason::Unverifiable, 500),
            (Reason::BadRequest, 400),
            (Reason::HeadTooLarge, 431),
            (Reason::NotHttp, 400),
            (Reason::UpstreamUnreachable, 502),
            (Reason::UpstreamTimeout, 504),
            (Reason::UpstreamProtocolError, 502),
            (Reason::UpstreamError, 502),
            (Reason::UpstreamBusy, 503),
            (Reason::TooManyTunnels, 503),
            (Reason::WriteRefused, 503),
        ]
    );
}

#[test]
fn a_failure_has_a_status_of_its_own() {
    for (reason, status) in statuses() {
        if reason.steps().contains(&Step::Failure) {
            assert_ne!(status, 500, "{reason:?}");
        }
    }
}
