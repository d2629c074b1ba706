/*
 * An importing partition: its tasks' faults, INVALIDATE, giving back, losing the exporter.
 *
 * Stands for xpmem/fault.py, importer.py and import_registry.py. One process, because a kernel takes one
 * event at a time. Nothing here is an access: what `pte` says may be loaded from and stored to at
 * any moment, even by a task that was stopped in the middle of a store an hour ago, so the judge
 * looks after every step.
 */

inline ask(i) {
  faulting[i] = 1; valid = 1; fault_number[i]++; fault_tries[i] = 1;
  printf("\t\timporter %d: FAULT %d\n", i, fault_number[i]);
  send(up[i], fault[i], fault_number[i])
}

inline fault_ends(i) {
  faulting[i] = 0; valid = 0; fault_tries[i] = 0; collisions = 0
}

inline install(i, frame) {
  printf("\t\timporter %d: maps frame %d\n", i, frame);
  pte[i] = frame; fault_ends(i) /* NONE: SIGBUS */
}

/* Importer.lose: every PTE of the home partition goes, what is in flight ends, nothing waits. */
inline lose(i) {
  joined[i] = 0; pte[i] = NONE;
  purge_frame(fault_reply[i]); purge(invalidate[i]); purge(evict_ack[i]);
  fault_ends(i); fault_number[i] = 0;
  returning[i] = 0; evict_number[i] = 0; evict_tries[i] = 0; invalidate_last[i] = 0
}

/* Activation in a newer session, which proves to the exporter that the old one was left. After a
 * crash the harness has proven it: a new boot proves nothing. */
inline join(i) {
  printf("\t\timporter %d: joins in session %d\n", i, session[i] + 1);
  if
  :: up[i] -> fence_begin(i) /* REACTIVATING */
  :: else
  fi;
  prove_gone(i); proven[i] = 0;
  alive[i] = 1; session[i]++; up[i] = 1; joined[i] = 1
}

#ifdef NO_EVICT_WAIT
#define GIVING_BACK(i) false
#else
#define GIVING_BACK(i) returning[i]
#endif

proctype Importer(byte i) {
  bit valid;         /* no invalidation crossed the fault in flight */
  byte collisions;
end:
  do
  /* Faults.resolve, Faults._ask */
  :: atomic { FREE_TO_BEGIN(i) && joined[i] && !pte[i] && !faulting[i] && !GIVING_BACK(i) &&
       touches -> begun = 1; touches--; ask(i) }
  :: atomic { faulting[i] && fault_tries[i] < TRIES && SILENT(fault[i], fault_reply[i]) ->
       printf("\t\timporter %d: FAULT %d again\n", i, fault_number[i]);
       fault_tries[i]++; send(up[i], fault[i], fault_number[i]) }
  :: atomic { faulting[i] && fault_tries[i] == TRIES ->
       printf("\t\timporter %d: FAULT_REPLY does not come\n", i);
       lose(i) }
  :: atomic { nempty(fault_reply[i]) -> take_frame(fault_reply[i]);
       if
       :: !faulting[i] || n != fault_number[i] /* answered before */
       :: faulting[i] && n == fault_number[i] && valid -> install(i, f)
       :: faulting[i] && n == fault_number[i] && !valid ->
          printf("\t\timporter %d: FAULT_REPLY %d was crossed\n", i, n);
#ifdef NO_VALID_CHECK
          install(i, f)
#else
          if
          :: collisions < COLLISIONS -> collisions++; ask(i)
          :: else ->
             printf("\t\timporter %d: EAGAIN\n", i);
             fault_ends(i)
          fi
#endif
       fi;
       f = NONE }

  /* Importer.invalidate */
  :: atomic { nempty(invalidate[i]) -> take(invalidate[i]);
       if
       :: n < invalidate_last[i]
       :: n == invalidate_last[i] ->
          printf("\t\timporter %d: INVALIDATE %d is a repetition\n", i, n);
          send(up[i], invalidate_ack[i], n)
       :: n > invalidate_last[i] ->
          printf("\t\timporter %d: INVALIDATE %d zaps frame %d\n", i, n, pte[i]);
          invalidate_last[i] = n; valid = 0; pte[i] = NONE; send(up[i], invalidate_ack[i], n)
       fi }

  /* Faults.give_back */
  :: atomic { pte[i] && !returning[i] && returns ->
       returns--; pte[i] = NONE; returning[i] = 1; evict_number[i]++; evict_tries[i] = 1;
       printf("\t\timporter %d: EVICT %d\n", i, evict_number[i]);
       send(up[i], evict[i], evict_number[i]) }
  :: atomic { returning[i] && evict_tries[i] < TRIES && SILENT(evict[i], evict_ack[i]) ->
       printf("\t\timporter %d: EVICT %d again\n", i, evict_number[i]);
       evict_tries[i]++; send(up[i], evict[i], evict_number[i]) }
  :: atomic { returning[i] && evict_tries[i] == TRIES ->
       printf("\t\timporter %d: EVICT stays unanswered\n", i);
       lose(i) }
  :: atomic { nempty(evict_ack[i]) -> take(evict_ack[i]);
       if
       :: returning[i] && n == evict_number[i] ->
          printf("\t\timporter %d: gave back\n", i);
          returning[i] = 0; evict_tries[i] = 0
       :: else
       fi }

  /* sessions and processes */
  :: atomic { joined[i] && !up[i] ->
       printf("\t\timporter %d: learns that it was given up\n", i);
       lose(i) }
  :: atomic { FREE_TO_BEGIN(i) && joined[i] && up[i] && failures ->
       printf("\t\timporter %d: no heartbeat, but the exporter lives\n", i);
       begun = 1; failures--; lose(i) }
  :: atomic { FREE_TO_BEGIN(i) && alive[i] && failures ->
       printf("\t\timporter %d: crashes\n", i);
       begun = 1; failures--; alive[i] = 0; lose(i) }
  :: atomic { !joined[i] && session[i] < SESSIONS && (alive[i] || proven[i]) -> join(i) }
  od
}
