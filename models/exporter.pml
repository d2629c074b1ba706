/*
 * The home side: memory operations, the server of faults, the recall, the fence.
 *
 * Stands for xpmem/exporter.py, recall.py and fence.py and for what of mm and xpc they lean on.
 */

/* -- Recalls.begin, Recalls.settle ---------------------------------------------------------- */

/* settle sends a little later; the wire, which keeps messages back at will, does that here. */
inline tell(i) {
  held[i] = holds[i]; telling[i] = holds[i]; holds[i] = 0;
  if
  :: telling[i] ->
     invalidate_number[i]++; invalidate_tries[i] = 1;
     printf("exporter: INVALIDATE %d to importer %d\n", invalidate_number[i], i);
     send(joined[i], invalidate[i], invalidate_number[i])
  :: else
  fi
}

inline recall_begin() {
  request_valid = 0;
  if
  :: known -> taken = known; known = NONE; tell(0); tell(1)
  :: else
  fi
}

#ifdef NO_ACK_WAIT
#define SETTLED true
#else
#define SETTLED (!telling[0] && !telling[1])
#endif

inline recall_settled() {
  if
  :: taken ->
     printf("exporter: frame %d recalled\n", taken);
     references[taken]--; taken = NONE; held[0] = 0; held[1] = 0
  :: else
  fi
}

/* -- Fence.begin, Fence.prove_gone, Exporter.drop ------------------------------------------- */

inline drop(i) {
  holds[i] = 0;
  if
  :: known && !holds[0] && !holds[1] -> references[known]--; known = NONE
  :: else
  fi
}

/* While a page is being recalled the table does not have it: one frame is all there can be. */
inline keep(i, frame) {
#ifndef NO_FENCE
  printf("exporter: frame %d quarantined\n", frame);
  assert(!quarantine[i]);
  references[frame]++; quarantine[i] = frame
#else
  skip
#endif
}

/* Partition.deactivate: the session ends here, callers wake, answers are forgotten. */
inline fence_begin(i) {
  printf("exporter: importer %d is given up\n", i);
  up[i] = 0;
  purge(fault[i]); purge(evict[i]); purge(invalidate_ack[i]);
  fault_last[i] = 0; fault_answer[i] = NONE; evict_last[i] = 0;
  telling[i] = 0; invalidate_number[i] = 0; invalidate_tries[i] = 0;
  if
  :: taken && held[i] ->
     keep(i, taken); held[i] = 0;
#ifndef FENCE_FORGETS_RECALLED
     moving[i] = (page == taken) /* mprotect and others leave the page where it was */
#endif
  :: holds[i] -> moving[i] = (page == known); keep(i, known); drop(i)
  :: else
  fi
}

/* Fence._live: nothing has to move any more when the page left, or the importer is gone. */
inline look_again(i) {
  moving[i] = (moving[i] && quarantine[i] && quarantine[i] == page)
}

inline prove_gone(i) {
  if
  :: quarantine[i] ->
     printf("exporter: frame %d leaves the quarantine\n", quarantine[i]);
     references[quarantine[i]]--; quarantine[i] = NONE; look_again(i)
  :: else
  fi
}

/* -- who calls invalidate_range -------------------------------------------------------------- */

/* FrameAllocator.allocate: the lowest free frame will do, all are alike. */
inline find_free(frame) {
  frame = 1;
  do
  :: frame <= FRAMES && references[frame] -> frame++
  :: else -> break
  od
}

inline move_page(frame) {
  printf("exporter: page leaves frame %d for %d\n", page, frame);
  references[page]--; page = frame;
  if
  :: frame -> references[frame]++
  :: else
  fi;
  look_again(0); look_again(1)
}

proctype Operations() {
  byte left = OPERATIONS, old, new;
end:
  do
  :: atomic { left && page && !busy && !pinned -> /* munmap, truncate, exit */
       printf("exporter: munmap, page was in frame %d\n", page);
       left--; busy = 1; recall_begin(); old = page; page = NONE;
       look_again(0); look_again(1) }
     atomic { SETTLED -> recall_settled(); references[old]--; old = NONE; busy = 0 }
  :: atomic { left && page && !busy && !pinned -> /* mprotect, page_mkclean, fork, remove */
       printf("exporter: mprotect, page stays in frame %d\n", page);
       left--; busy = 1; recall_begin() }
     atomic { SETTLED -> recall_settled(); busy = 0 }
  :: atomic { left && page && !busy -> /* migration, reclaim, copy on write: Transit */
       printf("exporter: migration begins\n");
       left--; busy = 1; recall_begin() }
     atomic { SETTLED -> recall_settled(); find_free(new);
       if
       :: new <= FRAMES && !pinned -> move_page(new)
       :: else -> printf("exporter: page stays\n") /* no frame, or somebody insists on it */
       fi;
       new = NONE; busy = 0 }
  od
}

#ifdef FENCE_TRIES_ONCE
#define INSISTED false
#else
#define INSISTED pinned
#endif

/* Fence._migrate: the page leaves the frame that a lost importer may still write. */
proctype Fence(byte i) {
  byte new;
end:
  do
  :: atomic { moving[i] && !busy && !INSISTED ->
       printf("exporter: fence of importer %d moves the page\n", i);
       busy = 1; recall_begin() }
     atomic { SETTLED -> recall_settled(); find_free(new);
       if
       :: pinned ->
          printf("exporter: page is pinned\n");
#ifdef FENCE_TRIES_ONCE
          moving[i] = 0
#else
          skip /* again, when it is let go */
#endif
       :: !pinned && new <= FRAMES -> move_page(new)
       :: !pinned && new > FRAMES -> move_page(NONE) /* nowhere to go: SIGKILL for its tasks */
       fi;
       new = NONE; busy = 0 }
  od
}

/* -- Exporter._fault, _make_known, _pin ------------------------------------------------------ */

#define GRANTED(i) (up[i] && in_session == session[i])

proctype Server(byte i) {
  byte in_session, tries;
end:
  do
  :: atomic { nempty(fault[i]) && !taken && !requested -> take(fault[i]);
       if
       :: n < fault_last[i] -> goto end
       :: n == fault_last[i] ->
          printf("exporter: FAULT %d of importer %d is a repetition\n", n, i);
          send_frame(joined[i], fault_reply[i], n, fault_answer[i]); goto end
       :: n > fault_last[i] -> in_session = session[i]; fault_last[i] = n; fault_answer[i] = NONE
       fi }
     do
     :: atomic { !taken && !requested -> /* _quiet, then judge without a sleep */
          if
          :: !GRANTED(i) || tries > COLLISIONS -> break
          :: GRANTED(i) && tries <= COLLISIONS && known ->
             holds[i] = 1; fault_answer[i] = known; break
          :: GRANTED(i) && tries <= COLLISIONS && !known ->
             requested = 1; request_valid = 1; tries++
          fi }
        atomic { !busy -> /* pin_pages: an operation in progress comes first */
          if
          :: page ->
             printf("exporter: frame %d pinned for importer %d\n", page, i);
             references[page]++; pinned = page
          :: else -> /* a hole: errno */
             printf("exporter: hole\n");
             requested = 0; request_valid = 0; break
          fi }
        atomic {
          requested = 0;
          if
#ifdef NO_PIN_CHECK
          :: GRANTED(i) ->
#else
          :: GRANTED(i) && request_valid ->
#endif
             request_valid = 0; known = pinned; pinned = NONE;
             holds[i] = 1; fault_answer[i] = known; break
          :: else ->
             printf("exporter: request is no longer valid\n");
             request_valid = 0; references[pinned]--; pinned = NONE
          fi }
     od;
     atomic { /* still the same step: noting the holder and answering are one */
       if
       :: GRANTED(i) ->
          printf("exporter: FAULT_REPLY %d to importer %d, frame %d\n",
            fault_last[i], i, fault_answer[i]);
          send_frame(joined[i], fault_reply[i], fault_last[i], fault_answer[i])
       :: else
       fi;
       in_session = 0; tries = 0 }
  od
}

/* -- everything else that concerns one importer ---------------------------------------------- */

proctype Peer(byte i) {
end:
  do
  /* Recalls._tell_one: an INVALIDATE until it is acknowledged or its holder fenced */
  :: atomic { telling[i] && invalidate_tries[i] < TRIES &&
       SILENT(invalidate[i], invalidate_ack[i]) ->
       printf("exporter: INVALIDATE %d to importer %d again\n", invalidate_number[i], i);
       invalidate_tries[i]++; send(joined[i], invalidate[i], invalidate_number[i]) }
  :: atomic { nempty(invalidate_ack[i]) -> take(invalidate_ack[i]);
       if
       :: telling[i] && n == invalidate_number[i] ->
          printf("exporter: importer %d acknowledged\n", i);
          telling[i] = 0; invalidate_tries[i] = 0
       :: else /* answered before */
       fi }

  /* Exporter._evict */
  :: atomic { nempty(evict[i]) -> take(evict[i]);
       if
       :: n < evict_last[i]
       :: n == evict_last[i] ->
          printf("exporter: EVICT %d of importer %d is a repetition\n", n, i);
#ifdef NO_DEDUP
          drop(i);
#endif
          send(joined[i], evict_ack[i], n)
       :: n > evict_last[i] ->
          printf("exporter: importer %d holds nothing any more\n", i);
          evict_last[i] = n; drop(i); send(joined[i], evict_ack[i], n)
       fi }

  /* the session ends: no acknowledgement, no heartbeat, or the harness saw the process end */
  :: atomic { (telling[i] && invalidate_tries[i] == TRIES) || (up[i] && !joined[i]) ->
       printf("exporter: importer %d does not answer\n", i);
       fence_begin(i) }
  :: atomic { FREE_TO_BEGIN(i) && up[i] && joined[i] && failures ->
       printf("exporter: no heartbeat, but importer %d lives\n", i);
       begun = 1; failures--; fence_begin(i) }
  :: atomic { !alive[i] && !proven[i] ->
       printf("exporter: the process of importer %d is gone\n", i);
       proven[i] = 1;
#ifndef PROOF_FORGOTTEN
       if
       :: up[i] -> fence_begin(i)
       :: else
       fi;
#endif
       prove_gone(i) }
  od
}
