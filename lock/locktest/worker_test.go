package locktest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
)

// taskEnv makes a process that runs this test binary a worker.
const taskEnv = "SLUICE_LOCKTEST_TASK"

// task is what a worker does: acquire the lock, and write to the log while the lease is
// valid.
type task struct {
	Place place
	Name  string // of the worker
	Lock  string
	TTL   time.Duration
	Log   string        // address
	Pause time.Duration // between the check that the lease is valid and the write
	Turn  int           // writes before the lock is given back; 0 is never
}

// work is the life of a worker. It ends when its test does.
func work(text string) {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		panic("BUG: " + err.Error())
	}
	store, err := t.Place.open()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	conn, err := net.Dial("tcp", t.Log)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	answers := bufio.NewReader(conn)
	e := lock.New(store, lock.EngineOptions{Instance: t.Name})
	for {
		l, err := e.Acquire(context.Background(), t.Lock, lock.Options{TTL: t.TTL})
		if err != nil {
			continue
		}
		for n := 1; l.Valid() && (t.Turn == 0 || n <= t.Turn); n++ {
			time.Sleep(t.Pause) // the work that the write is the result of
			fmt.Fprintf(conn, "%d %s\n", l.Token(), t.Name)
			if _, err := answers.ReadString('\n'); err != nil {
				os.Exit(0)
			}
		}
		_ = l.Release(context.Background())
	}
}

// record is one write of a worker.
type record struct {
	token uint64
	name  string
	at    time.Time
}

// ledger is what workers write to: two logs, one of which asks a fence first.
type ledger struct {
	ln    net.Listener
	fence *lock.Fence

	mu       sync.Mutex
	unfenced []record
	fenced   []record
	refused  int
}

func startLedger(t testing.TB) *ledger {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m, err := lock.NewMetrics(nil)
	require.NoError(t, err)
	l := &ledger{ln: ln, fence: lock.NewFence("ledger", m)}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() { l.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l
}

func (l *ledger) serve(conn net.Conn) {
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		r := record{at: time.Now()}
		if _, err := fmt.Sscan(lines.Text(), &r.token, &r.name); err != nil {
			panic("BUG: a worker wrote " + lines.Text())
		}
		l.write(r)
		if _, err := conn.Write([]byte("ok\n")); err != nil {
			return
		}
	}
}

func (l *ledger) write(r record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unfenced = append(l.unfenced, r)
	if !l.fence.Accept("log", r.token) {
		l.refused++
		return
	}
	l.fenced = append(l.fenced, r)
}

// newest is the write with the highest token; false before the first.
func (l *ledger) newest() (record, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.fenced) == 0 {
		return record{}, false
	}
	return l.fenced[len(l.fenced)-1], true
}

// awaitAfter waits for a write with a higher token.
func (l *ledger) awaitAfter(t testing.TB, token uint64) record {
	t.Helper()
	var r record
	require.Eventually(t, func() bool {
		var ok bool
		r, ok = l.newest()
		return ok && r.token > token
	}, 20*time.Second, time.Millisecond, "nobody took over")
	return r
}

// stale counts writes that came after one with a higher token.
func stale(log []record) (n int) {
	var highest uint64
	for _, r := range log {
		if r.token < highest {
			n++
		}
		highest = max(highest, r.token)
	}
	return n
}

func startWorker(t testing.TB, w task) *testutil.Process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return testutil.StartProcess(t, testutil.Command{Name: w.Name, Path: self, Env: []string{taskEnv + "=" + marshal(w)}})
}
