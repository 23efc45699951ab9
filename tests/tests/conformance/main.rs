//! Drivers behave the same: one set of checks, on every runtime, against real servers of every setting.
//!
//! ```text
//! cargo test -p larder-tests --test conformance                       everything, and a table of it
//! cargo test -p larder-tests --test conformance -- smol close         the checks named close…, on smol
//! ```

mod backends;
#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod lifetime;
mod operations;
#[path = "../common/runtimes.rs"]
mod runtimes;
#[path = "../common/table.rs"]
mod table;
mod values;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder::{Cache, Error, RedisBuilder};
use larder_tests::RedisServer;
use rustix::process::{Pid, Signal, kill_process};

use common::certificates::Authority;
use runtimes::{RUNTIMES, Runtime, Tasks};
use table::Table;

/// A way to reach a server.
struct Setting {
    name: &'static str,
    args: &'static [&'static str],
    /// What is said to the server before the checks.
    prepare: &'static [&'static str],
    way: Way,
    database: &'static str,
}

enum Way {
    Url(fn(&RedisServer) -> String),
    /// Through TLS, to a server with a certificate of its own.
    Tls,
}

const SETTINGS: &[Setting] = &[
    Setting { name: "plain", args: &[], prepare: &[], way: Way::Url(RedisServer::url), database: "0" },
    Setting {
        name: "password",
        args: &["--requirepass", "secret"],
        prepare: &[],
        way: Way::Url(|server| format!("redis://:secret@127.0.0.1:{}", server.port())),
        database: "0",
    },
    Setting {
        name: "ACL user",
        args: &[],
        prepare: &["ACL", "SETUSER", "app", "on", ">p@ss", "~t*", "+@all"],
        way: Way::Url(|server| format!("redis://app:p%40ss@127.0.0.1:{}", server.port())),
        database: "0",
    },
    Setting {
        name: "Unix socket",
        args: &[],
        prepare: &[],
        way: Way::Url(|server| format!("redis+unix://{}?db=5", server.unix_socket().display())),
        database: "5",
    },
    Setting {
        name: "RESP2 only",
        args: &["--rename-command", "HELLO", "", "--requirepass", "pw"],
        prepare: &[],
        way: Way::Url(|server| format!("redis://:pw@127.0.0.1:{}/2", server.port())),
        database: "2",
    },
    Setting { name: "TLS", args: &[], prepare: &[], way: Way::Tls, database: "0" },
    Setting {
        name: "database",
        args: &[],
        prepare: &[],
        way: Way::Url(|server| format!("redis://localhost:{}/7", server.port())),
        database: "7",
    },
];

struct Check {
    name: &'static str,
    /// Whether it is run in every setting, or in the first one only.
    everywhere: bool,
    run: fn(World) -> runtimes::Check,
}

/// A check takes the cache that it is about, and what is around it.
macro_rules! checks {
    ($($where:ident: $module:ident { $($check:ident),* $(,)? })*) => {
        const CHECKS: &[Check] = &[$($(Check {
            name: stringify!($check),
            everywhere: stringify!($where).len() == "everywhere".len(),
            run: |world| Box::pin(async move {
                let cache = world.connect(world.builder()).await.expect("the server runs");
                $module::$check(&cache, &world).await;
            }),
        }),*),*];
    };
}

checks! {
    everywhere: operations {
        every_operation_is_the_servers,
        times_to_live_are_the_servers,
        overwriting_replaces_the_time_to_live,
        clear_touches_only_its_namespace,
        keys_are_checked_and_stored_as_they_are,
        null_miss_undecodable_and_wrong_type_are_four_things,
    }
    everywhere: values {
        codecs_bring_back_what_they_wrote,
        binary_values_of_every_small_size_survive,
    }
    everywhere: lifetime {
        dropping_last_handle_ends_task,
        close_drains_what_is_in_flight,
    }
    everywhere: concurrency {
        callers_get_their_own_values,
        dropped_futures_give_nobody_anothers_value,
    }
    once: values {
        values_of_1_byte_to_64_mib_survive,
    }
    once: concurrency {
        ten_thousand_writes_at_once_are_all_stored,
        lanes_share_the_load_by_key,
        a_future_that_is_never_polled_does_nothing,
    }
    once: backends {
        every_kind_of_cache_answers_alike,
        threads_and_tasks_share_a_cache,
        a_library_works_under_every_runtime,
        a_backend_of_ones_own_is_given_keys_and_times_to_live,
        errors_of_a_backend_reach_the_caller,
    }
    once: lifetime {
        connecting_fails_with_the_cause,
        silent_connections_are_probed,
    }
}

fn main() -> ExitCode {
    let mut table = Table::new("conformance");
    for setting in SETTINGS {
        let runs = || CHECKS.iter().filter(|check| check.everywhere || setting.name == SETTINGS[0].name);
        let wanted = |check: &Check, runtime: &Runtime| table.wants(setting.name, check.name, runtime.name);
        let cells: Vec<_> = runs()
            .flat_map(|check| RUNTIMES.iter().map(move |runtime| (check, runtime)))
            .filter(|(check, runtime)| wanted(check, runtime))
            .collect();
        if cells.is_empty() {
            continue;
        }
        let authority = Authority::new();
        let (server, url) = match setting.way {
            Way::Url(of) => {
                let server = RedisServer::builder().args(setting.args).start();
                let url = of(&server);
                (server, url)
            }
            Way::Tls => {
                let server = authority.serve(&authority.issue("127.0.0.1"), false, setting.args);
                let url = format!("{}?tls_ca_file={}", server.url(), authority.ca_file().display());
                (server.redis, url)
            }
        };
        let server = Arc::new(server);
        if !setting.prepare.is_empty() {
            assert_eq!(server.cli(setting.prepare), "OK", "{}", setting.name);
        }
        for (check, runtime) in cells {
            assert_eq!(server.cli(&["FLUSHALL"]), "OK");
            let (server, url) = (Arc::clone(&server), url.clone());
            let world = World { runtime, setting, server, url, tasks: Tasks::default() };
            table.end(table::start(setting.name, check.name, runtime, move || (check.run)(world)));
        }
        if Arc::strong_count(&server) > 1 {
            // A check that hangs still holds it, and nobody would end it when this process ends.
            let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("the id of a process");
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    table.finish()
}

/// What is around a check: a runtime, and a server that nobody else uses meanwhile.
struct World {
    runtime: &'static Runtime,
    setting: &'static Setting,
    server: Arc<RedisServer>,
    url: String,
    tasks: Tasks,
}

impl World {
    /// A cache that never answers from memory, so that every answer is the server's.
    fn builder(&self) -> RedisBuilder {
        let builder = Cache::redis(self.url.clone()).namespace("t").fallback(false);
        // Nothing here is about time, and the machine may be slow.
        builder.operation_timeout(Duration::from_secs(30)).stall_timeout(Duration::from_secs(30))
    }

    async fn connect(&self, builder: RedisBuilder) -> Result<Cache, Error> {
        self.runtime.connect(builder, &self.tasks).await
    }

    /// Tasks of this check's caches.
    fn live_tasks(&self) -> usize {
        self.tasks.load(Ordering::SeqCst)
    }

    /// Asks the server by redis-cli, in the database of the setting.
    fn cli(&self, args: &[&str]) -> String {
        self.server.cli(&[&["-n", self.setting.database], args].concat())
    }

    /// The time to live that the server sees, in milliseconds; -1 is without end, -2 without a key.
    fn time_to_live(&self, key: &str) -> i64 {
        self.cli(&["PTTL", key]).parse().expect("a number")
    }

    /// Keys in the database.
    fn size(&self) -> usize {
        self.cli(&["DBSIZE"]).parse().expect("a number")
    }
}
