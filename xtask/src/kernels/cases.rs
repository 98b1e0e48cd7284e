//! The part of the contract suite that runs on other kernels.
//!
//! These cases depend on the kernel: streaming receives and accepts, provided buffers, cancels, the
//! ends of threads and of ports, tables of sockets without descriptors. Under emulation everything
//! takes 10 to 20 times as long. So the list has no case that measures time or processor time
//! (`an_idle_port_sleeps`, `a_paused_listener_does_not_spin`, `traffic_does_not_hold_timers_back`),
//! none that moves much data (`storms`, the seeds, a hundred thousand timers), and none that needs
//! programs a guest does not have (`strace`, `unshare`). A list of cases to leave out was rejected:
//! every new case would be included automatically, and a slow one would make the leg fail though
//! the case is right.

/// The driver that `Auto` takes, and what it reports about the kernel.
pub(super) const CHOICE: &[&str] = &[
    "auto_takes_the_best_that_works_and_says_why",
    "a_driver_reports_its_kernels_features_and_fallbacks",
];

/// By topic, in the order of the suite.
pub(super) const CASES: &[&str] = &[
    // Wake-ups, by message or by eventfd.
    "a_post_wakes_a_sleeping_waiter",
    "closing_wakes_every_waiter",
    "many_threads_get_each_post_once",
    // Accepts that stream, and their ends.
    "closing_a_listener_ends_its_accept_then_delivers_closed",
    "both_addresses_are_known_v4",
    "sixty_four_clients_are_accepted_once_each",
    "a_cancelled_accept_leaves_clients_waiting_for_the_next",
    "unix_sockets_are_accepted",
    // Connects.
    "a_refused_connect_is_a_packet",
    "sixty_four_connects_end_once_each",
    // Receives, which stream or do not.
    "data_that_was_there_first_comes_once",
    "a_fin_ends_the_receive_in_order",
    "a_reset_ends_the_receive_once",
    "bytes_come_before_the_end_that_follows_them",
    "a_stream_of_bytes_arrives_in_order",
    "an_empty_receive_waits_for_data_and_takes_none",
    "two_receives_fill_in_order",
    "an_operation_outlives_its_thread",
    "a_watch_reports_a_fin",
    "a_watch_reports_a_reset",
    "data_does_not_end_a_watch",
    "a_watch_sees_a_fin_behind_unread_data",
    // Provided buffers, and the bound of leases.
    "leases_at_their_bound_stop_one_stream_only",
    "a_lease_returned_on_another_thread_lets_its_stream_go_on",
    "an_exhausted_pool_serves_first_come_first_served",
    "an_idle_connection_holds_no_buffer",
    "a_lease_outlives_its_socket_and_its_port",
    "small_messages_beyond_the_leases_keep_their_order",
    "bytes_left_by_a_cancelled_stream_go_to_the_next_receive",
    "the_end_is_reported_after_what_waited",
    "an_end_just_after_a_message_is_reported",
    // Sends.
    "two_big_sends_go_out_in_order",
    "many_small_sends_go_out_in_order",
    "sends_of_many_threads_stay_whole",
    "sends_after_a_failed_one_end_with_their_buffers",
    // Cancels: old kernels have special codes for some.
    "cancelling_an_idle_receive_ends_it",
    "cancelling_a_receive_into_returns_the_buffer_untouched",
    "cancelling_a_watch_ends_it",
    "a_cancelled_receive_loses_no_bytes",
    "a_send_not_yet_begun_is_cancelled_alone",
    "a_send_cut_short_ends_the_write_side",
    // Ends of connections.
    "half_closing_an_echo_loses_nothing",
    "closing_ends_a_pending_receive_then_delivers_closed",
    "a_flushing_close_sends_what_is_queued_then_fin",
    "a_resetting_close_sends_rst_and_no_fin",
    "unread_input_does_not_destroy_output",
    "every_end_of_a_connection_has_its_kind",
    // Threads that come and go.
    "any_thread_submits_while_another_waits",
    "a_forgotten_waiters_turns_end_with_its_thread",
    "a_single_waiter_port_moves_to_another_thread_or_says_why_not",
    "one_connection_needs_no_lock",
    // Bounds and ends of ports.
    "a_listener_at_the_ports_bound_pauses_and_resumes",
    "a_listener_out_of_descriptors_pauses_and_resumes",
    "dropping_a_port_with_everything_in_flight",
    "peers_hear_that_the_port_is_gone",
    "no_handle_is_inherited",
    // Tables of sockets without descriptors, from Linux 6.8 on.
    "neither_accepted_nor_connected_sockets_take_descriptors",
    "a_full_table_pauses_and_loses_no_connection",
    "another_thread_ends_sockets_of_a_rings_thread",
    "sockets_of_a_table_end_with_their_thread",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chosen_case_is_there() {
        crate::legs::require_cases(CHOICE);
        crate::legs::require_cases(CASES);
    }
}
