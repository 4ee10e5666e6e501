//! GraphQL endpoints: queries are answered from the cache, mutations purge, the rest passes.

use serde_json::{Value, json};

use crate::support::flow::Flow;
use crate::support::scene::assert_cache;
use crate::support::{Reply, Request, Response, Scene, metric};

const ROUTES: &str = r#"
[fields]
order  = { body = "/variables/input/id" }
tenant = { header = "x-tenant-id" }

[[routes]]
path    = "/graphql"
ttl     = "5m"
scope   = "public"
graphql = true
tags    = ["orders", "all"]

[[routes]]
path    = "/mine/graphql"
ttl     = "5m"
graphql = true

[[routes]]
path    = "/{part}/api"
ttl     = "5m"
scope   = "public"
graphql = true

[[routes]]
path  = "/orders/{id}"
ttl   = "5m"
scope = "public"
tags  = ["order:{id}"]

[[purges]]
path      = "/graphql"
mutations = ["createOrder", "update*"]
tags      = ["orders"]

[[purges]]
path      = "/graphql"
mutations = ["setOrder"]
tags      = ["order:{order}"]
"#;

type Headers<'a> = &'a [(&'a str, &'a str)];

const JSON: (&str, &str) = ("content-type", "application/json");
const LIST: &str = "query List { orders { id } }";

/// Answers as a GraphQL server does: a document that speaks of `fail` has an error, one of `page` is
/// answered with HTML.
fn server(request: &Request) -> Response {
    let sent = format!("{} {}", request.target, String::from_utf8_lossy(&request.body));
    if sent.contains("page") {
        return Response::ok("<html>").header("content-type", "text/html");
    }
    let mut answer = json!({ "data": { "asked": request.number } });
    if sent.contains("fail") {
        answer["errors"] = json!([{ "message": "UNAUTHENTICATED" }]);
    }
    Response::ok(answer.to_string()).header("content-type", "application/json; charset=utf-8")
}

async fn post(scene: &Scene, path: &str, body: &Value) -> Reply {
    scene.send("POST", path, &[JSON], body.to_string()).await
}

async fn ask(scene: &Scene, document: &str) -> Reply {
    post(scene, "/graphql", &json!({ "query": document })).await
}

/// Fills the entry of a query by POST and that of another one by GET.
async fn warm(scene: &Scene) {
    for _ in 0..2 {
        ask(scene, LIST).await;
        scene.get("/graphql?query=%7Borders%7D").await;
    }
    assert_warm(scene, "HIT", "warm").await;
}

async fn assert_warm(scene: &Scene, cache: &str, why: &str) {
    assert_cache(&ask(scene, LIST).await, cache, &format!("POST, {why}"));
    assert_cache(&scene.get("/graphql?query=%7Borders%7D").await, cache, &format!("GET, {why}"));
}

#[tokio::test]
async fn queries_are_told_apart_by_document_variables_and_operation() {
    let scene = Scene::start(ROUTES, server).await;
    let two = "query A { a } query B { b }";
    for body in [
        json!({ "query": LIST }),
        json!({ "query": LIST, "variables": { "state": "open" } }),
        json!({ "query": LIST, "variables": { "state": "sent" } }),
        json!({ "query": two, "operationName": "A" }),
        json!({ "query": two, "operationName": "B" }),
        json!({ "query": LIST, "extensions": { "clientLibrary": { "name": "x" } } }),
    ] {
        assert_cache(&post(&scene, "/graphql", &body).await, "MISS", &body.to_string());
        let spaced = serde_json::to_string_pretty(&body).expect("JSON");
        let again = scene.send("POST", "/graphql", &[JSON], spaced).await;
        assert_cache(&again, "HIT", &body.to_string());
    }
    let got = &scene.seen("/graphql")[1];
    let canonical = r#"{"query":"query List { orders { id } }","variables":{"state":"open"}}"#;
    assert_eq!(got.body, canonical.as_bytes());
    for target in ["/graphql?query=%7Ba%7D", "/graphql?query=%7Ba%7D&variables=%7B%22a%22:1%7D"] {
        assert_cache(&scene.get(target).await, "MISS", target);
        assert_cache(&scene.get(target).await, "HIT", target);
        assert_cache(&scene.send("HEAD", target, &[], "").await, "HIT", target);
    }
}

#[tokio::test]
async fn a_mutation_purges_the_endpoint_or_what_rules_name() {
    let scene = Scene::start(ROUTES, server).await;
    for (document, why) in [
        ("mutation { other }", "no rule names it"),
        ("mutation { createOrder other }", "no rule names a part of it"),
        ("mutation createOrder { a: other }", "the name of the operation says nothing"),
        ("mutation { ...F } fragment F on M { createOrder ... on M { other } }", "in a fragment"),
        ("mutation { createOrder: other }", "an alias says nothing"),
        ("mutation { createOrder", "it cannot be read"),
        ("query Q { a } mutation { createOrder other }", "nobody can tell which of them runs"),
        ("mutation { createOrder }", "a rule names it, and the tag of all queries"),
        ("mutation { a: updateAny }", "by a pattern"),
    ] {
        warm(&scene).await;
        assert_cache(&ask(&scene, document).await, "BYPASS", document);
        assert_warm(&scene, "MISS", why).await;
    }
    // Rules that name all of it purge their tags alone.
    warm(&scene).await;
    for path in ["/orders/7", "/orders/8"] {
        scene.get(path).await;
        assert_cache(&scene.get(path).await, "HIT", path);
    }
    let set = "mutation Any($input: I) { aliased: setOrder(input: $input) { id } }";
    post(&scene, "/graphql", &json!({ "query": set, "variables": { "input": { "id": 7 } } })).await;
    assert_cache(&scene.get("/orders/7").await, "MISS", "by a variable");
    assert_cache(&scene.get("/orders/8").await, "HIT", "another one");
    assert_warm(&scene, "HIT", "not of these tags").await;
    // A literal in the document is no variable: the family.
    ask(&scene, "mutation { setOrder(id: 7) { id } }").await;
    assert_cache(&scene.get("/orders/8").await, "MISS", "the family");
    assert_warm(&scene, "HIT", "not of these tags").await;
    // What is in doubt may be any mutation.
    scene.get("/orders/8").await;
    scene.send("POST", "/graphql", &[JSON], "[").await;
    assert_cache(&scene.get("/orders/8").await, "MISS", "in doubt, by the rules");
}

#[tokio::test]
async fn what_may_be_a_mutation_is_one_by_any_spelling() {
    let scene = Scene::start(ROUTES, server).await;
    let mutation = json!({ "query": "mutation { other }" }).to_string();
    let query = json!({ "query": LIST }).to_string();
    let multipart = ("content-type", "multipart/form-data; boundary=b");
    let graphql = ("content-type", "application/graphql");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let cases: [(&str, &str, Headers<'_>, &str); 16] = [
        ("POST", "/graphql/", &[JSON], &mutation),
        ("POST", "/GraphQL", &[JSON], &mutation),
        ("POST", "/%67raphql", &[JSON], &mutation),
        ("POST", "//graphql", &[JSON], &mutation),
        ("GET", "/graphql?query=mutation%7Bother%7D", &[], ""),
        ("HEAD", "/graphql?query=mutation%7Bother%7D", &[], ""),
        ("GET", "/GRAPHQL?query=mutation%7Bother%7D", &[], ""),
        ("GET", "/graphql", &[JSON], &mutation),
        ("POST", "/graphql?query=mutation%7Bother%7D", &[JSON], &query),
        ("POST", "/graphql", &[multipart], &query),
        ("POST", "/graphql", &[graphql], "mutation { other }"),
        ("POST", "/graphql", &[form], "query=mutation%7Bother%7D"),
        ("POST", "/graphql", &[JSON, ("content-encoding", "gzip")], &query),
        ("POST", "/graphql", &[JSON, ("x-http-method-override", "PUT")], &query),
        ("DELETE", "/graphql", &[], ""),
        ("QUERY", "/graphql", &[JSON], &mutation),
    ];
    for (method, target, headers, body) in cases {
        warm(&scene).await;
        let reply = scene.send(method, target, headers, body.to_owned()).await;
        assert_cache(&reply, "BYPASS", target);
        assert_warm(&scene, "MISS", &format!("{method} {target} {headers:?}")).await;
    }
    assert!(metric(scene.sidecar.admin, "sidecache_graphql_in_doubt_total").await >= 4);
}

#[tokio::test]
async fn what_only_passes_purges_nothing() {
    let scene = Scene::start(ROUTES, server).await;
    warm(&scene).await;
    for body in [
        json!({ "query": "subscription { a }" }),
        json!({ "query": "{ a ... @defer { b } }" }),
        json!({ "query": "query A { a } query B { b }" }),
        json!([{ "query": LIST }, { "query": "{ a }" }]),
    ] {
        for _ in 0..2 {
            let reply = post(&scene, "/graphql", &body).await;
            assert_cache(&reply, "BYPASS", &body.to_string());
            let status = reply.header("cache-status");
            assert!(status.contains("graphql"), "{status}");
        }
    }
    for target in ["/graphql", "/graphql?a=1", "/graphql?documentId=x"] {
        assert_cache(&scene.get(target).await, "BYPASS", target);
    }
    assert_warm(&scene, "HIT", "nothing was written").await;
}

#[tokio::test]
async fn an_answer_with_errors_is_not_stored() {
    let scene = Scene::start(ROUTES, server).await;
    for document in ["{ fail }", "{ page }"] {
        for _ in 0..3 {
            assert_cache(&ask(&scene, document).await, "MISS", document);
        }
        let target = format!("/graphql?query=%7B{}%7D", &document[2..6]);
        for _ in 0..3 {
            assert_cache(&scene.get(&target).await, "MISS", document);
        }
    }
    let limited = format!("[limits]\ntag_body = \"1B\"\n{ROUTES}");
    let scene = Scene::start(&limited, server).await;
    for _ in 0..3 {
        assert_ne!(ask(&scene, LIST).await.cache(), "HIT");
    }
}

#[tokio::test]
async fn a_persisted_query_is_known_once_it_was_seen() {
    let scene = Scene::start(ROUTES, server).await;
    let document = "query Persisted { orders { total } }";
    let digest = {
        use sha2::{Digest as _, Sha256};
        format!("{:x}", Sha256::digest(document))
    };
    let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": digest } });
    let short = json!({ "extensions": extensions });
    let url = format!(
        "/graphql?extensions=%7B%22persistedQuery%22:%7B%22version%22:1,%22sha256Hash%22:%22{digest}%22%7D%7D"
    );
    warm(&scene).await;
    assert_cache(&scene.get(&url).await, "BYPASS", "unknown, by GET");
    assert_warm(&scene, "HIT", "an unknown GET purges nothing").await;
    assert_cache(&post(&scene, "/graphql", &short).await, "BYPASS", "unknown, by POST");
    assert_warm(&scene, "MISS", "an unknown POST may be a mutation").await;
    // Whose hash is another one's is no document of it.
    let lie = json!({ "query": "{ a }", "extensions": extensions });
    assert_cache(&post(&scene, "/graphql", &lie).await, "BYPASS", "a lie");
    assert_cache(&post(&scene, "/graphql", &short).await, "BYPASS", "a lie teaches nothing");
    let whole = json!({ "query": document, "extensions": extensions });
    assert_cache(&post(&scene, "/graphql", &whole).await, "MISS", "with its document");
    assert_cache(&post(&scene, "/graphql", &short).await, "MISS", "known");
    assert_cache(&post(&scene, "/graphql", &short).await, "HIT", "known");
    assert_cache(&scene.get(&url).await, "MISS", "known, by GET");
    assert_cache(&scene.get(&url).await, "HIT", "known, by GET");
    let admin = scene.sidecar.admin;
    assert!(metric(admin, "sidecache_graphql_documents").await >= 1);
    assert!(metric(admin, "sidecache_graphql_unknown_total").await >= 3);
}

#[tokio::test]
async fn callers_share_nothing_unless_the_route_says_so() {
    let scene = Scene::start(ROUTES, server).await;
    let ask_as = async |headers: &[(&str, &str)]| {
        let headers = [&[JSON], headers].concat();
        let body = json!({ "query": LIST }).to_string();
        scene.send("POST", "/mine/graphql", &headers, body).await
    };
    let ann: &[(&str, &str)] = &[("authorization", "Bearer ann")];
    for (headers, cache) in [
        (ann, "MISS"),
        (ann, "HIT"),
        (&[("authorization", "Bearer bob")][..], "MISS"),
        (&[][..], "MISS"),
        (&[("cookie", "sid=1")][..], "MISS"),
        (&[("authorization", "Bearer ann"), ("x-csrftoken", "t")][..], "MISS"),
        (&[("x-unheard-of", "1")][..], "BYPASS"),
        (&[("x-apollo-operation-name", "List")][..], "MISS"),
        (&[("x-apollo-operation-name", "List")][..], "HIT"),
    ] {
        assert_cache(&ask_as(headers).await, cache, &format!("{headers:?}"));
    }
    let got = scene.last("/mine/graphql");
    assert_eq!(got.header("x-apollo-operation-name").as_deref(), Some("List"));
}

#[tokio::test]
async fn a_mutation_purges_all_paths_of_its_endpoint() {
    let scene = Scene::start(ROUTES, server).await;
    let body = json!({ "query": LIST });
    post(&scene, "/one/api", &body).await;
    assert_cache(&post(&scene, "/one/api", &body).await, "HIT", "warm");
    post(&scene, "/two/API", &json!({ "query": "mutation { a }" })).await;
    assert_cache(&post(&scene, "/one/api", &body).await, "MISS", "of another path");
}

#[tokio::test]
async fn shadow_mode_stores_no_answer_with_errors_either() {
    let app = crate::support::Origin::start(server);
    let rules = "[[routes]]\npath = \"/graphql\"\nttl = \"5m\"\nscope = \"public\"\ngraphql = true\n\
                 mode = \"shadow\"\n";
    let flow = Flow::start(app.address, rules).await;
    for document in ["{ a }", "{ a }", "{ fail }", "{ fail }"] {
        let body = json!({ "query": document }).to_string();
        assert_cache(&flow.send("POST", "/graphql", &[JSON], body).await, "BYPASS", document);
    }
    assert_eq!(flow.route("/graphql").would_hit, 1);
}

const ORDERS: &str = r#"
[fields]
order = { body = "/variables/input/id" }

[[routes]]
path    = "/graphql"
ttl     = "5m"
scope   = "public"
graphql = true
tags    = ["orders"]

[[routes]]
path  = "/api/orders/{id}"
ttl   = "5m"
scope = "public"
tags  = ["order:{id}"]
"#;

/// What of the orders 7 and 8 is still answered from the cache after a write.
async fn orders_left(scene: &Scene, method: &str, target: &str, body: String) -> (bool, bool) {
    for path in ["/api/orders/7", "/api/orders/8"] {
        scene.get(path).await;
        assert_cache(&scene.get(path).await, "HIT", path);
    }
    assert_cache(&scene.send(method, target, &[JSON], body.clone()).await, "BYPASS", &body);
    let seven = scene.get("/api/orders/7").await.cache() == "HIT";
    (seven, scene.get("/api/orders/8").await.cache() == "HIT")
}

/// Names of variables and aliases are the client's choice, so a variable says what is written only
/// where it is the argument of its name of the only root field.
#[tokio::test]
async fn r1260_a_variable_counts_as_the_argument_of_its_name_alone() {
    let named = "[[purges]]\npath = \"/graphql\"\nmutations = [\"updateOrder\", \"cancel*\"]\n\
                 tags = [\"orders\", \"order:{order}\"]\n";
    let unnamed = "[[purges]]\npath = \"/graphql\"\ntags = [\"order:{order}\"]\n";
    let seven = json!({ "input": { "id": 7 } });
    let both = json!({ "input": { "id": 7 }, "b": { "id": 8 } });
    let one = "mutation M($input: OI) { a: updateOrder(input: $input, note: \"x\") { n } }";
    let spread = "mutation M($input: OI) { ... on M { ...F } } \
                  fragment F on M { updateOrder(input: $input) @include(if: true) { n } }";
    let inexact = [
        (
            "mutation($input: OI) { updateOrder(input: $input) { n } cancelOrder(id: 8) { n } }",
            &seven,
        ),
        (
            "mutation($input: OI, $b: OI) { a: updateOrder(input: $input) { n } \
             b: updateOrder(input: $b) { n } }",
            &both,
        ),
        ("mutation { updateOrder(id: 8) { n } }", &seven),
        ("mutation($b: OI = { id: 8 }) { updateOrder(input: $b) { n } }", &seven),
        ("mutation($input: ID) { updateOrder(input: { id: 8, of: $input }) { n } }", &seven),
        ("mutation($input: OI) { updateOrder(input: [$input, { id: 8 }]) { n } }", &seven),
        ("mutation($input: OI) { updateOrder(input: $input, input: { id: 8 }) { n } }", &seven),
        ("mutation($input: OI) { updateOrder(Input: $input) { n } }", &seven),
        (
            "mutation($input: OI) { ...F ...F } fragment F on M { updateOrder(input: $input) { n } }",
            &seven,
        ),
        (
            "mutation($input: OI) { updateOrder(input: $input) @skip(if: true) { n } \
             cancelOrder(id: 8) { n } }",
            &seven,
        ),
        (
            "mutation A($input: OI) { updateOrder(input: $input) { n } } \
             mutation B { cancelOrder(id: 8) { n } }",
            &seven,
        ),
    ];
    let odd = [
        json!({ "Input": { "id": 7 } }),
        json!({}),
        json!("{\"input\":{\"id\":7}}"),
        json!([{ "input": { "id": 7 } }]),
        json!({ "input": null }),
    ];
    for rule in [named, unnamed] {
        let scene = Scene::start(&format!("{ORDERS}{rule}"), server).await;
        for document in [one, spread] {
            let sent = json!({ "query": document, "variables": seven }).to_string();
            let left = orders_left(&scene, "POST", "/graphql", sent).await;
            assert_eq!(left, (false, true), "{document}");
        }
        let inexact = inexact.iter().map(|(document, variables)| (*document, *variables));
        for (document, variables) in inexact.chain(odd.iter().map(|odd| (one, odd))) {
            let sent = json!({ "query": document, "variables": variables }).to_string();
            let left = orders_left(&scene, "POST", "/graphql", sent.clone()).await;
            assert_eq!(left, (false, false), "{rule} {sent}");
        }
    }
}

/// What a write has that is no mutation, or elsewhere in its body, says nothing either.
#[tokio::test]
async fn r1261_other_members_and_other_writes_purge_the_family() {
    let rules = "[[purges]]\npath = \"/graphql\"\ntags = [\"order:{order}\"]\n";
    let scene = Scene::start(&format!("{ORDERS}{rules}"), server).await;
    let seven = json!({ "variables": { "input": { "id": 7 } } }).to_string();
    let by_url = "/graphql?query=mutation(%24input:OI)%7BupdateOrder(input:%24input)%7Bn%7D%7D";
    for (method, target, body) in
        [("PUT", "/graphql", &*seven), ("POST", "/GraphQL/", &*seven), ("GET", by_url, "")]
    {
        let left = orders_left(&scene, method, target, body.to_owned()).await;
        assert_eq!(left, (false, false), "{method} {target}");
    }
    let elsewhere = ORDERS.replace("/variables/input/id", "/operationName");
    let rules = "[[purges]]\npath = \"/graphql\"\ntags = [\"order:{order?}\"]\n";
    let optional = format!("{ORDERS}{rules}");
    let named = json!({ "query": "mutation { updateOrder(id: 8) { n } }" });
    for rules in [format!("{elsewhere}{}", rules.replace('?', "")), optional] {
        let scene = Scene::start(&rules, server).await;
        let mut sent = named.clone();
        sent["operationName"] = json!("7");
        let left = orders_left(&scene, "POST", "/graphql", sent.to_string()).await;
        assert_eq!(left, (false, false), "{rules}");
    }
}

/// Aliases name the members of an answer, so that an answer does not say what was written.
#[tokio::test]
async fn r1262_the_answer_to_a_mutation_names_no_tags() {
    let rule =
        "[[purges]]\npath = \"/graphql\"\ntags = [\"order:{response:/data/updateOrder/id}\"]\n";
    let answers = |_: &Request| {
        let answer = json!({ "data": { "updateOrder": { "id": 7 }, "b": { "id": 8 } } });
        Response::ok(answer.to_string()).header("content-type", "application/json")
    };
    let scene = Scene::start(&format!("{ORDERS}{rule}"), answers).await;
    let document = "mutation { updateOrder: touch(id: 7) { id } b: updateOrder(id: 8) { id } }";
    let sent = json!({ "query": document }).to_string();
    assert_eq!(orders_left(&scene, "POST", "/graphql", sent).await, (false, false));
}
