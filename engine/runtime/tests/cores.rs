//! Life of cores: start, mail, handover, timers, stalls, panics, orderly end; on both event loops.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corelane_runtime::net::{ConnectOptions, ListenOptions, Listener, TcpStream};
use corelane_runtime::testing::{config, drivers, on_both_drivers, on_cores, on_many_cores};
use corelane_runtime::{Adopted, Core, CoreConfig, Driver, DriverChoice, Error, Mail, Nanos, launch};

const MS: Duration = Duration::from_millis(1);

async fn until(core: &Core, met: impl Fn() -> bool) {
    while !met() {
        core.timers().sleep(MS).await;
    }
}

/// A main that only ends when the core is told to.
async fn for_ever(_core: Rc<Core>) {
    std::future::pending().await
}

#[test]
fn mail_from_another_thread_wakes_a_waiting_core() {
    for driver in drivers() {
        let cores = launch(vec![config(driver)], for_ever).expect("launch");
        let (tx, rx) = channel();
        for round in 0..1000 {
            let tx = tx.clone();
            let mail = Mail::task(move |core| tx.send((round, core.id)).expect("test waits"));
            cores.mail()[0].try_send(mail).expect("room");
            assert_eq!(rx.recv_timeout(Duration::from_secs(30)), Ok((round, 0)));
        }
        cores.stop();
        cores.join().expect("orderly end");
    }
}

#[test]
fn a_burst_of_mail_from_many_threads_arrives_whole() {
    const EACH: usize = 2000;
    for driver in drivers() {
        let cores = launch(vec![config(driver)], for_ever).expect("launch");
        let arrived = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (mailbox, arrived) = (cores.mail()[0].clone(), arrived.clone());
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let arrived = arrived.clone();
                        let mut mail = Mail::task(move |_| {
                            arrived.fetch_add(1, Ordering::Relaxed);
                        });
                        while let Err(back) = mailbox.try_send(mail) {
                            mail = back;
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        // Stopping overtakes mail; this letter does not.
        let (tx, rx) = channel();
        let mut last = Mail::task(move |_| tx.send(()).expect("test waits"));
        while let Err(back) = cores.mail()[0].try_send(last) {
            last = back;
            std::thread::yield_now();
        }
        rx.recv_timeout(Duration::from_secs(30)).expect("all mail was read");
        cores.stop();
        cores.join().expect("orderly end");
        assert_eq!(arrived.load(Ordering::Relaxed), 4 * EACH);
    }
}

#[test]
fn an_accepted_connection_is_served_on_the_core_it_was_handed_to() {
    for driver in drivers() {
        let (addr_tx, addr_rx) = channel::<SocketAddr>();
        let main = move |core: Rc<Core>| {
            let addr_tx = addr_tx.clone();
            async move {
                core.on_adopt(|core, adopted| {
                    assert_eq!(adopted.listener, 7);
                    let stream = TcpStream::from_fd(core, adopted.fd).expect("stream");
                    assert_eq!(stream.peer_addr().expect("peer"), adopted.peer);
                    let serving = core.clone();
                    core.spawn(async move {
                        let mut buf = serving.buffers().take();
                        buf.extend_from_slice(&[serving.id as u8]);
                        stream.write_all(buf).await.0.expect("write");
                    });
                });
                if core.id == 0 {
                    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                    let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
                    addr_tx.send(listener.local_addr()).expect("test waits");
                    loop {
                        let accepted = listener.accept().await.expect("accept");
                        let adopted = Adopted { fd: accepted.fd, listener: 7, peer: accepted.peer };
                        core.post(1, Mail::Adopt(adopted)).expect("room");
                    }
                }
                std::future::pending().await
            }
        };
        let cores = launch(vec![config(driver); 2], main).expect("launch");
        let addr = addr_rx.recv().expect("bound");
        for _ in 0..50 {
            use std::io::Read;
            let mut byte = [9];
            std::net::TcpStream::connect(addr).expect("connect").read_exact(&mut byte).expect("read");
            assert_eq!(byte, [1]);
        }
        cores.stop();
        cores.join().expect("orderly end");
    }
}

#[test]
fn a_connection_moves_between_cores_on_different_event_loops() {
    if drivers().len() < 2 {
        return;
    }
    for (here, there) in [(Driver::IoUring, Driver::Epoll), (Driver::Epoll, Driver::IoUring)] {
        let listening = Arc::new(AtomicBool::new(false));
        on_cores(vec![config(here), config(there)], move |core| {
            let listening = listening.clone();
            async move {
                let ready = Rc::new(Cell::new(false));
                let done = ready.clone();
                core.on_adopt(move |core, adopted| {
                    let stream = TcpStream::from_fd(core, adopted.fd).expect("stream");
                    let (core, done) = (core.clone(), done.clone());
                    core.clone().spawn(async move {
                        let (result, buf) = stream.read(core.buffers().take()).await;
                        assert_eq!(result.expect("read"), 4);
                        stream.write_all(buf).await.0.expect("write");
                        done.set(true);
                    });
                });
                if core.id == 1 {
                    listening.store(true, Ordering::SeqCst);
                    return until(&core, || ready.get()).await;
                }
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
                let client = TcpStream::connect(&core, listener.local_addr(), &ConnectOptions::default())
                    .await
                    .expect("connect");
                let accepted = listener.accept().await.expect("accept");
                // Before it has set its handler the other core would drop the connection.
                until(&core, || listening.load(Ordering::SeqCst)).await;
                let adopted = Adopted { fd: accepted.fd, listener: 0, peer: accepted.peer };
                core.post(1, Mail::Adopt(adopted)).expect("room");
                let mut buf = core.buffers().take();
                buf.extend_from_slice(b"ping");
                let (result, _) = client.write_all(buf).await;
                result.expect("write");
                let (result, buf) = client.read(core.buffers().take()).await;
                assert_eq!((result.expect("read"), buf.filled()), (4, &b"ping"[..]));
            }
        });
    }
}

#[test]
fn an_adoption_nobody_wants_is_closed_and_counted() {
    on_both_drivers(|core| async move {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
        let client = TcpStream::connect(&core, listener.local_addr(), &ConnectOptions::default())
            .await
            .expect("connect");
        let accepted = listener.accept().await.expect("accept");
        let adopted = Adopted { fd: accepted.fd, listener: 0, peer: accepted.peer };
        core.post(core.id, Mail::Adopt(adopted)).expect("room");
        assert_eq!(client.read(core.buffers().take()).await.0.expect("end"), 0);
        assert_eq!(core.stats().adoptions_dropped, 1);
        assert!(core.post(99, Mail::task(|_| ())).is_err());
    });
}

#[test]
fn deadlines_fire_in_order_and_never_early() {
    on_both_drivers(|core| async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = core.clock().now_exact();
        for after in [30u64, 3, 90, 12, 60, 3] {
            let (core, order) = (core.clone(), order.clone());
            core.clone().spawn(async move {
                let at = start + after as u32 * MS;
                core.timers().sleep_until(at).await;
                assert!(core.clock().now_exact() >= at, "{after} ms fired early");
                order.borrow_mut().push(after);
            });
        }
        until(&core, || order.borrow().len() == 6).await;
        assert_eq!(*order.borrow(), [3, 3, 12, 30, 60, 90]);
    });
}

#[test]
fn a_deadline_moved_later_fires_later_and_a_disarmed_one_never() {
    on_both_drivers(|core| async move {
        let (moved, disarmed) = (core.timers().deadline(), core.timers().deadline());
        let start = core.now();
        moved.arm(start + 5 * MS);
        disarmed.arm(start + 5 * MS);
        assert!(moved.is_armed() && !moved.is_expired());
        moved.arm(start + 40 * MS);
        disarmed.disarm();
        core.timers().sleep_until(start + 20 * MS).await;
        assert!(!moved.is_expired() && !disarmed.is_armed());
        moved.expired().await;
        assert!(core.clock().now_exact() >= start + 40 * MS);
        moved.arm(core.now());
        assert!(moved.is_expired(), "an instant that has come expires at once");
        assert!(!disarmed.is_expired());
        assert_eq!(core.timers().registered(), 3, "these two and the core's own");
    });
}

#[test]
fn a_deadline_moved_earlier_fires_earlier() {
    on_both_drivers(|core| async move {
        let deadline = core.timers().deadline();
        deadline.arm(core.now() + Duration::from_secs(3600));
        core.timers().sleep(5 * MS).await;
        deadline.arm(core.now() + 5 * MS);
        deadline.expired().await;
    });
}

#[test]
fn many_deadlines_all_fire_once() {
    on_both_drivers(|core| async move {
        const MANY: usize = 20_000;
        let fired = Rc::new(Cell::new(0));
        for at in 0..MANY {
            let (core, fired) = (core.clone(), fired.clone());
            core.clone().spawn(async move {
                core.timers().sleep(Duration::from_micros((at as u64 * 7919) % 150_000)).await;
                fired.set(fired.get() + 1);
            });
        }
        until(&core, || fired.get() == MANY).await;
        until(&core, || core.stats().tasks == 1).await;
        assert_eq!(core.timers().refused(), 0);
    });
}

#[test]
fn a_timeout_lets_what_is_ready_through() {
    on_both_drivers(|core| async move {
        let soon = core.now() + MS;
        assert_eq!(core.timers().timeout(soon, async { 5 }).await, Ok(5));
        let never = std::future::pending::<()>();
        assert!(core.timers().timeout(soon, never).await.is_err());
        let deadline = core.timers().deadline();
        deadline.arm(core.now());
        assert_eq!(deadline.limit(async { 6 }).await, Ok(6), "ready wins over expired");
        assert!(deadline.limit(std::future::pending::<()>()).await.is_err());
    });
}

#[test]
fn an_interval_keeps_ticking() {
    on_both_drivers(|core| async move {
        let start = core.now();
        let mut interval = core.timers().interval(2 * MS);
        for tick in 1..=5 {
            interval.tick().await;
            assert!(core.clock().now_exact() >= start + tick * 2 * MS);
        }
    });
}

#[test]
fn one_turn_sees_one_instant_and_time_goes_on() {
    on_both_drivers(|core| async move {
        let first = core.now();
        while core.clock().now_exact() == first {}
        assert_eq!(core.now(), first, "the same turn");
        let turns = core.clock().turns();
        core.timers().sleep(MS).await;
        assert!(core.now() >= first + MS);
        assert!(core.clock().turns() > turns);
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        assert!(core.clock().unix_nanos().abs_diff(unix.as_nanos() as u64) < 5_000_000_000);
    });
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    on_both_drivers(|core| async move {
        core.spawn(async { std::panic::resume_unwind(Box::new("on purpose")) });
        core.post(0, Mail::task(|_| std::panic::resume_unwind(Box::new("on purpose")))).expect("room");
        until(&core, || core.stats().tasks_panicked == 2).await;
        let (tx, rx) = channel();
        core.post(0, Mail::task(move |_| tx.send(()).expect("test waits"))).expect("room");
        until(&core, || rx.try_recv().is_ok()).await;
    });
}

#[test]
fn a_panicking_main_is_reported() {
    for driver in drivers() {
        let cores =
            launch(vec![config(driver)], |_| async { std::panic::resume_unwind(Box::new("on purpose")) });
        let error = cores.expect("launch").join().expect_err("panicked");
        assert!(matches!(error, Error::Panicked { core: 0 }), "{error}");
    }
}

#[test]
fn stopping_drops_every_task_and_closes_its_connections() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    for driver in drivers() {
        let (addr_tx, addr_rx) = channel::<SocketAddr>();
        let dropped = Arc::new(AtomicUsize::new(0));
        let witness = dropped.clone();
        let main = move |core: Rc<Core>| {
            let (addr_tx, witness) = (addr_tx.clone(), witness.clone());
            async move {
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
                addr_tx.send(listener.local_addr()).expect("test waits");
                loop {
                    let stream = listener.accept().await.expect("accept").into_stream(&core).expect("stream");
                    let (reading, witness) = (core.clone(), Dropped(witness.clone()));
                    core.spawn(async move {
                        drop(stream.read(reading.buffers().take()).await);
                        drop(witness);
                    });
                }
            }
        };
        let cores = launch(vec![config(driver)], main).expect("launch");
        let addr = addr_rx.recv().expect("bound");
        let mut clients: Vec<_> =
            (0..20).map(|_| std::net::TcpStream::connect(addr).expect("connect")).collect();
        // Connected is not accepted: wait until every reader holds its buffer.
        let (tx, rx) = channel();
        loop {
            let tx = tx.clone();
            let ask = Mail::task(move |core| tx.send(core.buffers().stats().in_use).expect("test waits"));
            cores.mail()[0].try_send(ask).expect("room");
            if rx.recv().expect("answer") == 20 {
                break;
            }
        }
        cores.stop();
        cores.join().expect("orderly end");
        assert_eq!(dropped.load(Ordering::SeqCst), 20);
        for client in &mut clients {
            use std::io::Read;
            assert_eq!(client.read(&mut [0; 8]).expect("closed"), 0);
        }
    }
}

#[test]
fn a_core_that_does_not_turn_is_named() {
    for driver in drivers() {
        let cores = launch(vec![config(driver); 2], for_ever).expect("launch");
        let mut watchdog = cores.watchdog(Duration::from_millis(20));
        assert_eq!(watchdog.check(Nanos::read()).count(), 0);
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let block = Mail::task(move |_| drop(held.lock().map(|held| held.recv())));
        cores.mail()[1].try_send(block).expect("room");
        let stall = loop {
            let stall = watchdog.check(Nanos::read()).next();
            if let Some(stall) = stall {
                break stall;
            }
        };
        assert!(stall.core == 1 && stall.lasting > Duration::from_millis(20));
        drop(release);
        while watchdog.check(Nanos::read()).count() > 0 {}
        cores.stop();
        cores.join().expect("orderly end");
    }
}

#[test]
fn placement_is_shared_and_guards_cross_threads() {
    let seen = Arc::new(AtomicUsize::new(0));
    on_many_cores(2, move |core| {
        let seen = seen.clone();
        async move {
            let guard = core.placement().claim(core.id);
            until(&core, || core.placement().load(0) == 1 && core.placement().load(1) == 1).await;
            // Counts on across the drivers: each run adds two.
            seen.fetch_add(1, Ordering::SeqCst);
            until(&core, || seen.load(Ordering::SeqCst).is_multiple_of(2)).await;
            std::thread::spawn(move || drop(guard)).join().expect("joined");
            until(&core, || core.placement().load(core.id) == 0).await;
        }
    });
}

#[test]
fn busy_polling_cores_still_serve_mail_timers_and_sockets() {
    for driver in drivers() {
        let polling = CoreConfig { busy_poll_us: 200, ..config(driver) };
        on_cores(vec![polling], |core| async move {
            let (tx, rx) = channel();
            core.post(0, Mail::task(move |_| tx.send(()).expect("test waits"))).expect("room");
            until(&core, || rx.try_recv().is_ok()).await;
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
            let client = TcpStream::connect(&core, listener.local_addr(), &ConnectOptions::default()).await;
            let client = client.expect("connect");
            let server = listener.accept().await.expect("accept").into_stream(&core).expect("stream");
            for _ in 0..100 {
                client.try_write(b"x").expect("write");
                let buf = server.read(core.buffers().take()).await.1;
                assert_eq!(buf.filled(), b"x");
                core.now();
            }
        });
    }
}

#[test]
fn free_buffers_are_given_back_when_the_core_is_idle() {
    on_both_drivers(|core| async move {
        drop((0..64).map(|_| core.buffers().take()).collect::<Vec<_>>());
        core.now();
        assert_eq!(core.buffers().stats().kept, 64);
        until(&core, || core.buffers().stats().kept == 0).await;
    });
}

#[test]
fn an_impossible_start_is_an_error() {
    assert!(matches!(launch(Vec::new(), for_ever), Err(Error::NoCores)));
    let config = |cpu| CoreConfig { cpu: Some(cpu), driver: DriverChoice::Epoll, ..CoreConfig::default() };
    let error = launch(vec![config(1023)], for_ever).map(|_| ()).expect_err("no such cpu");
    assert!(matches!(error, Error::Pin { core: 0, cpu: 1023 }), "{error}");
}

#[test]
fn cores_are_named_threads() {
    on_many_cores(2, |core| async move {
        assert_eq!(std::thread::current().name(), Some(format!("core-{}", core.id).as_str()));
        assert_eq!(core.cores(), 2);
    });
}
