//! Tests of who leads, who follows, and what wakes the followers.

use super::*;
use crate::clock::Clock;
use crate::coherence::Coherence;
use crate::policy::tag::Tag;

fn key() -> FillKey {
    FillKey { hash: KeyHash::of_byte(7), caller: None }
}

fn head(more_tags: bool) -> SharedHead {
    let (vary, variant) = (VarySpec::default(), KeyHash::of_byte(7));
    SharedHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        ttl: 1,
        revalidated: false,
        more_tags,
        vary,
        variant,
        digest: None,
    }
}

fn same(_: &VarySpec) -> KeyHash {
    KeyHash::of_byte(7)
}

fn all(_: &SharedHead) -> bool {
    true
}

fn fills() -> (Arc<Fills>, Coherence, Tag) {
    (
        Fills::new(10, Duration::from_secs(5), 1000),
        Coherence::new(None, Clock::system()),
        Tag::new("a"),
    )
}

fn lead(part: FillRole) -> Leader {
    match part {
        FillRole::Leader(lead) => lead,
        other => panic!("{other:?}"),
    }
}

fn follow(part: FillRole) -> Follower {
    match part {
        FillRole::Follower(follow) => follow,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_second_request_follows_the_first() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    lead.share(head(false), SharedBody::new(1000, 100, &Budget::new(u64::MAX)));
    assert!(matches!(follow.join(&snapshot, same, all).await, JoinOutcome::Shared(..)));
    drop(lead);
    assert!(fills.is_empty());
}

#[tokio::test]
async fn a_follower_of_another_variant_does_not_get_the_leaders_response() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    lead.share(head(false), SharedBody::new(1000, 100, &Budget::new(u64::MAX)));
    assert!(matches!(
        follow.join(&snapshot, |_| KeyHash::of_byte(8), all).await,
        JoinOutcome::OtherVariant(_)
    ));
}

#[tokio::test]
async fn a_follower_who_may_not_have_the_response_does_not_get_it() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    let confirmed = SharedHead { digest: Some([1; 16]), ..head(false) };
    lead.share(confirmed, SharedBody::new(1000, 100, &Budget::new(u64::MAX)));
    let may_share = |head: &SharedHead| head.digest == Some([2; 16]);
    assert!(matches!(follow.join(&snapshot, same, may_share).await, JoinOutcome::OtherCaller));
    assert_eq!(fills.counters.collapsed.get(), 0);
}

#[tokio::test]
async fn a_purge_in_between_starts_a_new_fill() {
    let (fills, coherence, tag) = fills();
    let before = coherence.read_local(std::slice::from_ref(&tag));
    let first = lead(fills.role(key(), &before, Wall(0)));
    coherence.purge(std::slice::from_ref(&tag)).await;
    let after = coherence.read_local(&[tag]);
    let second = lead(fills.role(key(), &after, Wall(0)));
    drop(first);
    assert_eq!(fills.len(), 1, "the end of the old fill leaves the new one registered");
    let follow = follow(fills.role(key(), &after, Wall(0)));
    second.share(head(false), SharedBody::new(1000, 100, &Budget::new(u64::MAX)));
    assert!(matches!(follow.join(&after, same, all).await, JoinOutcome::Shared(..)));
}

#[tokio::test]
async fn a_purge_of_a_tag_that_only_the_response_has_keeps_followers_out() {
    let (fills, coherence, tag) = fills();
    let before = coherence.read_local(std::slice::from_ref(&tag));
    let lead = lead(fills.role(key(), &before, Wall(0)));
    coherence.purge(&[Tag::new("from the response")]).await;
    let after = coherence.read_local(&[tag]);
    let follow = follow(fills.role(key(), &after, Wall(0)));
    lead.share(head(true), SharedBody::new(1000, 100, &Budget::new(u64::MAX)));
    assert!(follow.join(&after, same, all).await.is_alone());
}

#[tokio::test]
async fn a_leader_that_dies_wakes_everybody() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    drop(lead);
    assert!(follow.join(&snapshot, same, all).await.is_alone());
}

#[tokio::test]
async fn followers_of_a_fill_that_another_sidecar_has_made_repeat_the_lookup() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    lead.retry_lookup();
    assert!(matches!(follow.join(&snapshot, same, all).await, JoinOutcome::RetryLookup));
    assert!(fills.is_empty(), "the next one leads");
}

#[tokio::test(start_paused = true)]
async fn a_leader_notices_that_its_last_follower_has_left() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    let joining = tokio::spawn(async move { follow.join(&snapshot, same, all).await.is_alone() });
    tokio::task::yield_now().await;
    assert!(
        tokio::time::timeout(Duration::from_secs(2), lead.until_no_followers()).await.is_err(),
        "a follower waits"
    );
    joining.abort();
    assert!(joining.await.is_err());
    assert!(tokio::time::timeout(Duration::from_secs(2), lead.until_no_followers()).await.is_ok());
}

#[tokio::test]
async fn an_uncacheable_key_is_remembered_for_a_while() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let first = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    first.finish_uncacheable(Wall(0));
    assert!(follow.join(&snapshot, same, all).await.is_alone());
    assert!(matches!(fills.role(key(), &snapshot, Wall(9_999)), FillRole::Alone));
    assert!(matches!(fills.role(key(), &snapshot, Wall(10_000)), FillRole::Leader(_)));
}

#[tokio::test]
async fn a_failure_reaches_followers_and_remembered_for_a_moment() {
    let (fills, coherence, tag) = fills();
    let snapshot = coherence.read_local(&[tag]);
    let first = lead(fills.role(key(), &snapshot, Wall(0)));
    let follow = follow(fills.role(key(), &snapshot, Wall(0)));
    first.fail(Reason::UpstreamProtocolError, Duration::ZERO, Wall(0));
    assert!(matches!(
        follow.join(&snapshot, same, all).await,
        JoinOutcome::Failed(Reason::UpstreamProtocolError)
    ));
    assert!(fills.is_backing_off(&key(), Wall(999)) && !fills.is_backing_off(&key(), Wall(1_000)));
    assert_eq!(
        fills.failed_slowly(&key(), Wall(0)),
        None,
        "a fast failure does not stop further fetches"
    );

    let second = lead(fills.role(key(), &snapshot, Wall(0)));
    second.fail(Reason::UpstreamTimeout, Duration::from_secs(5), Wall(5_000));
    assert_eq!(
        fills.failed_slowly(&key(), Wall(19_999)),
        Some(Reason::UpstreamTimeout),
        "5 s, and 10 s more"
    );
    assert_eq!(fills.failed_slowly(&key(), Wall(20_000)), None);
    let third = lead(fills.role(key(), &snapshot, Wall(6_000)));
    third.clear_failure();
    assert!(
        fills.failed_slowly(&key(), Wall(6_000)).is_none()
            && !fills.is_backing_off(&key(), Wall(5_500))
    );
}

#[tokio::test]
async fn the_number_of_followers_is_bounded() {
    let coherence = Coherence::new(None, Clock::system());
    let fills = Fills::new(1, Duration::from_secs(5), 1000);
    let snapshot = coherence.read_local(&[Tag::new("a")]);
    let _lead = lead(fills.role(key(), &snapshot, Wall(0)));
    let _follow = follow(fills.role(key(), &snapshot, Wall(0)));
    assert!(matches!(fills.role(key(), &snapshot, Wall(0)), FillRole::Alone));
    assert_eq!(fills.counters.waiters_rejected.get(), 1);
}

/// Requests the key at the moment it is woken, as a follower on another core may do.
struct RequestOnWake {
    fills: Arc<Fills>,
    snapshot: TagSnapshot,
    leads: Mutex<Vec<bool>>,
}

impl std::task::Wake for RequestOnWake {
    fn wake(self: Arc<Self>) {
        let role = self.fills.role(key(), &self.snapshot, Wall(0));
        let leads = matches!(role, FillRole::Leader(_) | FillRole::Alone);
        self.leads.lock().push(leads);
    }
}

#[tokio::test]
async fn no_request_joins_a_fill_that_has_just_ended() {
    let ends: [fn(Leader); 5] = [
        |lead| lead.fail(Reason::UpstreamUnreachable, Duration::ZERO, Wall(0)),
        |lead| lead.finish_uncacheable(Wall(0)),
        Leader::finish_unshared,
        Leader::retry_lookup,
        drop,
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (fills, coherence, tag) = fills();
        let snapshot = coherence.read_local(&[tag]);
        let lead = lead(fills.role(key(), &snapshot, Wall(0)));
        let follower = follow(fills.role(key(), &snapshot, Wall(0)));
        let (leads, fills) = (Mutex::default(), Arc::clone(&fills));
        let again = Arc::new(RequestOnWake { fills, snapshot: snapshot.clone(), leads });
        let waker = std::task::Waker::from(Arc::clone(&again));
        let mut joining = std::pin::pin!(follower.join(&snapshot, same, all));
        let mut context = std::task::Context::from_waker(&waker);
        assert!(joining.as_mut().poll(&mut context).is_pending());
        end(lead);
        let leads = again.leads.lock().clone();
        assert!(!leads.is_empty() && leads.iter().all(|leads| *leads), "{number}: {leads:?}");
    }
}
