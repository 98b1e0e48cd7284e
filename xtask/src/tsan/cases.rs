//! The part of the contract suite that runs under ThreadSanitizer.
//!
//! These cases have several threads use one port: waits, turns, posts and wake-ups, submits and
//! cancels from other threads, ends of threads and of ports. A case with one thread has no races,
//! and under ThreadSanitizer everything takes 5 to 15 times as long.

/// By topic, in the order of the suite.
pub(super) const CASES: &[&str] = &[
    // Posts, timers, wake-ups.
    "many_threads_get_each_post_once",
    "a_post_wakes_a_sleeping_waiter",
    "closing_wakes_every_waiter",
    "a_sleeping_waiter_learns_of_a_nearer_timer",
    "a_timer_wakes_one_of_several_waiters",
    // Connections that several threads use.
    "sixty_four_clients_are_accepted_once_each",
    "sixty_four_connects_end_once_each",
    "an_operation_outlives_its_thread",
    "a_lease_returned_on_another_thread_lets_its_stream_go_on",
    "a_lease_may_go_out_on_another_port",
    "sends_of_many_threads_stay_whole",
    "both_directions_move_at_once",
    "cancels_that_race_with_data_lose_no_bytes",
    // Waiters and their turns.
    "packets_given_back_wake_another_waiter",
    "bytes_given_back_stay_in_order",
    "a_forgotten_waiter_closes_a_port_that_has_no_other",
    "a_forgotten_waiters_turns_end_with_its_thread",
    "a_single_waiter_port_moves_to_another_thread_or_says_why_not",
    "any_thread_submits_while_another_waits",
    "submissions_of_other_threads_wake_a_wait_without_a_limit",
    "an_end_may_come_before_its_submit_returns",
    "a_waiter_may_close_its_own_port",
    // Waiters that leave with their threads.
    "a_waiter_in_a_thread_local_leaves_once",
    "a_single_waiter_in_a_thread_local_ends_with_its_thread",
    "packets_of_a_waiter_in_a_thread_local_go_to_others",
    "packets_of_a_forgotten_waiter_go_to_others",
    "bytes_of_a_forgotten_waiter_stay_in_order",
    "the_number_of_a_live_waiter_is_not_given_again",
    "data_that_comes_during_a_forgotten_turn_is_delivered",
    "a_port_whose_waiter_is_gone_ends_on_any_thread",
    "a_connect_goes_on_when_its_waiters_thread_ends",
    "a_waiter_called_to_lead_without_time_calls_another",
    "cancels_of_other_threads_wake_a_wait_without_a_limit",
    // Turns.
    "while_a_waiter_holds_packets_no_other_gets_more_of_the_socket",
    "one_connection_needs_no_lock",
    "a_hundred_connections_keep_their_order",
    // Ends.
    "dropping_a_port_with_everything_in_flight",
    "closing_from_many_threads_at_once_is_one_close",
    "closing_under_load_hangs_no_thread",
    "threads_that_submit_and_end_leave_nothing_undone",
    "waiters_come_and_go_while_a_port_works_and_closes",
    // Tables of sockets without descriptors.
    "another_thread_ends_sockets_of_a_rings_thread",
    "another_thread_connects_without_descriptors",
    "sockets_of_a_table_end_with_their_thread",
];

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn every_chosen_case_is_there() {
        crate::legs::require_cases(CASES);
    }
}
