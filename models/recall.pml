/*
 * One page, one exporter, two importers: can a recall ever leave a stale mapping behind?
 *
 * Fault, recall, lost and repeated messages, importers that crash, importers that were given up
 * but live on, fences and new sessions, interleaved in every possible order. The race that started
 * it all is one of these orders:
 *
 *      exporter                                importer
 *      |                                       | FAULT, record valid
 *      | page = frame 1; FAULT_REPLY(1), slow
 *      | munmap; INVALIDATE overtakes the reply
 *      |                                       | record marked invalid, INVALIDATE_ACK
 *      | frame 1 freed, somebody else's now
 *      |                                       | FAULT_REPLY(1): record invalid, DROPPED
 *
 * An atomic block is a stretch of kernel code between two awaits; comments name the function. This
 * file holds the state, the wire and the judge, exporter.pml and importer.pml hold who moves.
 * What is left out and why, and how to read a counter-example: README.md.
 *
 * Judged after every step: S1 S2 S4 S7 of the protocol. Judged wherever an execution ends: S3, and
 * that nobody waits. With -DNP and `pan -l`: no execution is infinite.
 */

#define N 2 /* importers */

/* Bounds. Every loop of the model spends one of these, so every execution ends. */
#ifndef FRAMES
#define FRAMES 3 /* physical frames of the exporter, numbered from 1 */
#endif
#ifndef OPERATIONS
#define OPERATIONS 2 /* memory operations of the exporter's tasks */
#endif
#ifndef TOUCHES
#define TOUCHES 2 /* accesses that fault, of both importers together */
#endif
#ifndef COLLISIONS
#define COLLISIONS 1 /* invalidations that may cross one fault before EAGAIN */
#endif
#ifndef RETURNS
#define RETURNS 1 /* pages given back unasked: EVICT */
#endif
#ifndef TRIES
#define TRIES 2 /* how often a request is sent before the peer is given up */
#endif
#ifndef REPEATS
#define REPEATS 1 /* messages that arrive twice */
#endif
#ifndef FAILURES
#define FAILURES 1 /* importer processes that vanish, heartbeats that stay out without a reason */
#endif
#ifndef SESSIONS
#define SESSIONS 2 /* sessions per importer: the first, and those it rejoins in */
#endif

#define NONE 0 /* no frame */

/* The exporter's memory. A frame without references is free: somebody else's at once. */
byte page = 1;           /* frame behind the exporter's page; NONE is a hole */
byte references[FRAMES + 1];
bit busy;                /* an operation has the page in transit: pinning waits */
byte pinned;             /* frame that a page request pinned and did not record yet */

/* The segment: its PFN table, the page request and the recall in progress. */
byte known;              /* frame in the PFN table: pinned, and held by somebody */
bit holds[N];            /* who may map `known` */
bit requested;           /* a page request is in progress */
bit request_valid;       /* ... and no recall came meanwhile */
byte taken;              /* frame being recalled, still pinned; NONE: no recall */
bit held[N];             /* who may map `taken` */
bit telling[N];          /* whose INVALIDATE is not settled */

/* The fence. */
byte quarantine[N];      /* frame kept out of the allocator because of this importer */
bit moving[N];           /* ... and the page may still have to leave it */
bit proven[N];           /* the crashed process is known gone */

/* Sessions. Each side leaves by itself; both enter the next one together. */
byte session[N];
bit up[N];               /* exporter's side */
bit joined[N];           /* importer's side */

/* The importers, as far as others look at them. */
bit alive[N];
byte pte[N];             /* frame that its tasks load from and store to, at any moment */
bit faulting[N];         /* a fault is in flight */
bit returning[N];        /* an EVICT is in flight */

byte touches = TOUCHES, returns = RETURNS, repeats = REPEATS, failures = FAILURES;

/* The importers are alike, so the first to do anything may be called 0. */
bit begun;
#define FREE_TO_BEGIN(i) (begun || i == 0)

/*
 * The wire: one place per importer and kind of message, so that kinds overtake each other freely.
 * Sending loses the message or puts it in place; there it stays as long as it likes, unless a
 * later one pushes it out. Taking it may leave a copy behind. A side that leaves a session drops
 * what was on its way to it, and what will still be sent: frames name their session.
 */
chan fault[N] = [1] of { byte };              /* number */
chan fault_reply[N] = [1] of { byte, byte };  /* number, frame or NONE: errno */
chan invalidate[N] = [1] of { byte };
chan invalidate_ack[N] = [1] of { byte };
chan evict[N] = [1] of { byte };
chan evict_ack[N] = [1] of { byte };

/* Slots of requests in flight: number, and how often sent. Zero tries: nothing in flight. */
byte fault_number[N], fault_tries[N];
byte evict_number[N], evict_tries[N];
byte invalidate_number[N], invalidate_tries[N];

/* Receiving rings: the number seen last and, for a fault, the remembered answer. */
byte fault_last[N], fault_answer[N], evict_last[N], invalidate_last[N];

hidden byte n, f; /* number and frame of the message in hand */

#ifdef NO_GATE
#define THERE(side) true
#else
#define THERE(side) side
#endif

inline send(side, wire, number) {
  if
  :: printf("\t(lost)\n")
  :: THERE(side) && nfull(wire) -> wire!number
  :: THERE(side) && full(wire) -> wire?_; wire!number
  fi
}

inline send_frame(side, wire, number, frame) {
  if
  :: printf("\t(lost)\n")
  :: THERE(side) && nfull(wire) -> wire!number, frame
  :: THERE(side) && full(wire) -> wire?_, _; wire!number, frame
  fi
}

/* Sending again while request or answer is on the wire would be a repetition: see `take`. */
#define SILENT(request, answer) (empty(request) && empty(answer))

inline take(wire) {
  if
  :: wire?n
  :: repeats -> wire?<n>; repeats--; printf("\t(twice)\n")
  fi
}

inline take_frame(wire) {
  if
  :: wire?n, f
  :: repeats -> wire?<n, f>; repeats--; printf("\t(twice)\n")
  fi
}

inline purge(wire) {
#ifdef NO_GATE
  skip
#else
  if
  :: full(wire) -> wire?_
  :: empty(wire)
  fi
#endif
}

inline purge_frame(wire) {
#ifdef NO_GATE
  skip
#else
  if
  :: full(wire) -> wire?_, _
  :: empty(wire)
  fi
#endif
}

#include "exporter.pml"
#include "importer.pml"

/* -- the judge: shares no logic with what it judges ----------------------------------------- */

/* An importer that is where the exporter believes it to be maps only what the exporter says. */
#define STALE(i) (pte[i] && up[i] && !(pte[i] == known && holds[i]) && \
  !(pte[i] == taken && held[i] && telling[i]))
/* The frame under a mapping is somebody else's, whatever the exporter thinks of the importer. */
#define FREED(i) (pte[i] && !references[pte[i]])
/* The fence is done, and the importer still reaches the page that the exporter's tasks see. */
#define ESCAPED(i) (pte[i] && !up[i] && !moving[i] && !busy && pte[i] == page)

#define COUNT(f) ((page == f) + (known == f) + (quarantine[0] == f) + (quarantine[1] == f))
#define UNBALANCED(f) (references[f] != COUNT(f))
#define WAITING(i) (faulting[i] || returning[i] || telling[i] || moving[i])
#define LEAKED(i) (quarantine[i] && !alive[i])

/* Always false: a failed assertion prints the name. */
bool S1_no_stale_mapping, S2_no_early_free, S3_pins_balance, S4_right_frame;
bool S7_fenced_means_fenced, L_everything_ends, L_quarantine_ends;

active proctype Judge() {
end:
  do
  :: atomic { STALE(0) || STALE(1) -> assert(S1_no_stale_mapping) }
  :: atomic { FREED(0) || FREED(1) -> assert(S2_no_early_free) }
  :: atomic { known && known != page -> assert(S4_right_frame) }
  :: atomic { ESCAPED(0) || ESCAPED(1) -> assert(S7_fenced_means_fenced) }
  :: timeout -> break
  od;
  if
  :: WAITING(0) || WAITING(1) || busy || taken || requested || pinned ->
     assert(L_everything_ends)
  :: LEAKED(0) || LEAKED(1) -> assert(L_quarantine_ends)
  :: UNBALANCED(1) || UNBALANCED(2) || UNBALANCED(FRAMES) -> assert(S3_pins_balance)
  :: else
  fi
}

init {
  atomic {
    references[page] = 1;
    session[0] = 1; up[0] = 1; joined[0] = 1; alive[0] = 1;
    session[1] = 1; up[1] = 1; joined[1] = 1; alive[1] = 1;
    run Operations();
    run Server(0); run Server(1);
    run Peer(0); run Peer(1);
    run Fence(0); run Fence(1);
    run Importer(0); run Importer(1)
  }
}
