"""The library's promises, each with the test that shows it.

An option, a field or an event that is added without a row here fails, and so does a row whose test
is gone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from rlm_mcp import HistoryEntry, RLMConfig, RLMEvent, RLMResponse
from rlm_mcp.engine.config import PromptVariantName
from rlm_mcp.engine.run_context import EventType

HERE = Path(__file__).parent

# Option: default, module, test.
OPTIONS: dict[str, tuple[object, str, str]] = {
    "max_iterations": (
        25,
        "orchestrator",
        "test_at_the_last_turn_the_best_answer_is_asked_for_and_marked",
    ),
    "max_sub_calls": (
        500,
        "orchestrator",
        "test_a_batch_larger_than_the_budget_makes_exactly_what_fits",
    ),
    "attempts": (
        1,
        "attempts",
        "test_what_most_attempts_answer_is_taken_however_it_is_spelled",
    ),
    "max_recursion_depth": (
        1,
        "orchestrator",
        "test_at_depth_three_a_run_inside_a_run_has_runs_of_its_own",
    ),
    "max_seconds": (None, "orchestrator", "test_the_time_limit_holds_when_the_model_hangs"),
    "max_tokens": (
        None,
        "orchestrator",
        "test_a_token_budget_is_not_overshot_and_ends_with_an_answer",
    ),
    "max_usd": (None, "endings", "test_the_end_of_a_budget_keeps_the_work"),
    "enable_sub_calls": (
        True,
        "orchestrator",
        "test_without_sub_calls_there_is_no_word_of_them",
    ),
    "metadata_prefix_chars": (1000, "orchestrator", "test_output_is_shown_cut_and_kept_whole"),
    "direct_max_chars": (
        0,
        "orchestrator",
        "test_a_short_text_is_read_directly_and_the_answer_says_so",
    ),
    "sub_call_max_input_chars": (
        500_000,
        "orchestrator",
        "test_a_prompt_too_long_is_told_with_its_length_and_the_limit",
    ),
    "temperature": (
        0.6,
        "orchestrator",
        "test_parameters_of_root_and_sub_calls_are_their_own",
    ),
    "sub_temperature": (
        0.4,
        "orchestrator",
        "test_parameters_of_root_and_sub_calls_are_their_own",
    ),
    "root_max_tokens": (
        16_384,
        "orchestrator",
        "test_parameters_of_root_and_sub_calls_are_their_own",
    ),
    "root_context_tokens": (
        None,
        "orchestrator",
        "test_two_hundred_turns_fit_into_a_window_of_eight_thousand_tokens",
    ),
    "sub_max_tokens": (
        8_192,
        "orchestrator",
        "test_parameters_of_root_and_sub_calls_are_their_own",
    ),
    "sandbox_timeout": (
        120,
        "orchestrator",
        "test_a_cell_over_its_time_is_told_and_the_run_goes_on",
    ),
    "max_concurrent_calls": (32, "wrapper", "test_calls_at_once_are_as_many_as_the_config_allows"),
    "prompt_variant": ("default", "promises", "test_each_prompt_variant_has_its_test"),
    "cost_per_input_token": (
        0.0,
        "wrapper",
        "test_the_response_of_the_first_example_prints_all_its_figures",
    ),
    "cost_per_output_token": (
        0.0,
        "wrapper",
        "test_the_response_of_the_first_example_prints_all_its_figures",
    ),
    "verbose": (False, "wrapper", "test_verbose_prints_events_to_stderr_alone"),
}

VARIANTS: dict[str, tuple[str, str]] = {
    "default": ("prompt", "test_the_code_in_the_system_prompt_runs_in_a_real_repl"),
    "cost_warning": ("prompt", "test_the_economy_of_sub_calls_is_told_in_its_variant_alone"),
    "small_context": ("prompt", "test_each_worked_session_works_in_a_real_repl_and_looks_like_it"),
}

RESPONSE: dict[str, tuple[str, str]] = {
    "answer": ("orchestrator", "test_an_answer_is_taken"),
    "status": ("orchestrator", "test_an_answer_is_taken"),
    "iterations": ("orchestrator", "test_an_answer_is_taken"),
    "sub_calls": ("wrapper", "test_a_question_is_answered_with_an_async_client"),
    "total_input_tokens": (
        "orchestrator",
        "test_a_token_budget_is_not_overshot_and_ends_with_an_answer",
    ),
    "total_output_tokens": (
        "orchestrator",
        "test_a_token_budget_is_not_overshot_and_ends_with_an_answer",
    ),
    "elapsed_seconds": ("endings", "test_the_end_of_a_budget_keeps_the_work"),
    "cost": ("wrapper", "test_the_cost_is_told_where_prices_are_known"),
    "cached_sub_calls": ("orchestrator", "test_cached_replies_cost_nothing"),
    "error": ("endings", "test_a_failure_of_the_model_keeps_the_work"),
    "data": ("orchestrator", "test_an_answer_that_fits_the_schema_comes_as_data"),
    "direct": ("orchestrator", "test_a_short_text_is_read_directly_and_the_answer_says_so"),
    "citations": ("citations", "test_the_library_has_citations_and_support"),
    "support": ("citations", "test_the_library_has_citations_and_support"),
    "history": ("orchestrator", "test_the_history_is_the_whole_trace"),
    "repl_variables": ("wrapper", "test_a_question_is_answered_with_an_async_client"),
}

EVENT: dict[str, tuple[str, str]] = dict.fromkeys(
    (field.name for field in fields(RLMEvent)),
    ("orchestrator", "test_events_tell_the_run_in_order_with_its_figures"),
) | {
    "response": ("wrapper", "test_a_stream_of_events_ends_with_the_response"),
    "depth": ("orchestrator", "test_at_depth_two_a_run_answers_in_a_repl_of_its_own"),
}

EVENTS: dict[str, tuple[str, str]] = dict.fromkeys(
    get_args(EventType), ("wrapper", "test_a_stream_of_events_ends_with_the_response")
) | {
    "warning": ("orchestrator", "test_a_lost_repl_is_told_and_the_run_goes_on"),
    "root_delta": ("wrapper", "test_a_stream_of_events_can_hold_the_text_as_it_arrives"),
}

HISTORY: dict[str, tuple[str, str]] = dict.fromkeys(
    ("role", "content", "truncated_content", "iteration"),
    ("orchestrator", "test_the_history_is_the_whole_trace"),
)

USAGES: dict[str, tuple[str, str]] = {
    "a question from a plain script": ("wrapper", "test_a_plain_script_can_ask"),
    "what the answer cost": (
        "wrapper",
        "test_the_response_of_the_first_example_prints_all_its_figures",
    ),
    "one model for the root, another for sub-calls": (
        "wrapper",
        "test_a_question_is_answered_with_an_async_client",
    ),
    "an asynchronous client": ("wrapper", "test_a_question_is_answered_with_an_async_client"),
    "sub-calls of a batch at once": (
        "orchestrator",
        "test_a_batch_is_asked_at_once_and_answered_in_order",
    ),
    "a running event loop, as in a notebook": (
        "wrapper",
        "test_generate_works_inside_a_running_loop",
    ),
    "one loop after another": (
        "wrapper",
        "test_one_wrapper_may_be_asked_from_one_loop_after_another",
    ),
    "events as they happen": ("wrapper", "test_events_of_a_blocking_call_are_shown_as_they_come"),
    "events as a stream": ("wrapper", "test_a_stream_of_events_ends_with_the_response"),
    "any provider with such an API": (
        "clients",
        "test_a_client_sends_its_own_requests_with_its_own_settings",
    ),
    "a list of documents": (
        "wrapper",
        "test_a_synchronous_client_and_several_documents_will_do",
    ),
    "code alone, without sub-calls": (
        "orchestrator",
        "test_without_sub_calls_there_is_no_word_of_them",
    ),
    "errors of one tree": ("wrapper", "test_a_failed_run_is_a_response_and_not_an_exception"),
}

PROPERTIES: dict[str, tuple[str, str]] = {
    "the whole text never enters the root's window": (
        "orchestrator",
        "test_a_text_that_is_too_long_or_empty_is_not_read_directly",
    ),
    "output is cut before the root sees it": (
        "orchestrator",
        "test_output_is_shown_cut_and_kept_whole",
    ),
    "code can start any number of calls": (
        "orchestrator",
        "test_a_batch_is_asked_at_once_and_answered_in_order",
    ),
    "other sandboxes": ("wrapper", "test_a_sandbox_of_ones_own_will_do"),
    "the root's text as it comes": ("wrapper", "test_the_roots_replies_are_heard_as_they_arrive"),
    "sub-calls that need not be asked again": (
        "wrapper",
        "test_a_cache_answers_for_later_questions",
    ),
    "models of other providers": ("wrapper", "test_a_model_of_ones_own_will_do"),
    "OpenTelemetry": (
        "tracing",
        "test_run_turns_calls_and_cells_are_spans_inside_each_other",
    ),
    "typed answers": ("orchestrator", "test_an_answer_that_fits_the_schema_comes_as_data"),
    "a failure in a batch is a falsy value in its place": (
        "orchestrator",
        "test_one_failure_in_a_batch_loses_nothing_else",
    ),
}


PROVIDERS: dict[str, tuple[str, str]] = {
    "parameters that are refused are left out and remembered": (
        "model",
        "test_a_rejected_parameter_is_left_out_and_remembered",
    ),
    "usage that is missing is estimated and marked": (
        "model",
        "test_missing_usage_is_estimated_from_lengths_and_marked",
    ),
    "reasoning is kept out of the answer": ("model", "test_a_reply_comes_with_its_figures"),
    "a pause that is asked for is kept": (
        "model",
        "test_the_pause_that_the_provider_names_is_kept",
    ),
    "a rate limit slows down everybody": (
        "model",
        "test_a_rate_limit_holds_back_the_other_calls_too",
    ),
    "many runs do not hammer": (
        "model",
        "test_a_hundred_runs_do_not_hammer_a_provider_that_takes_four_calls_at_once",
    ),
    "what passes is retried": ("model", "test_a_passing_fault_is_retried_with_growing_pauses"),
    "a connection that dies in mid-stream": (
        "model",
        "test_a_stream_that_broke_begins_again_and_says_so",
    ),
    "a prompt that is too long is shortened": (
        "orchestrator",
        "test_a_conversation_that_outgrows_the_window_loses_its_oldest_turns",
    ),
    "a short text that does not fit after all": (
        "orchestrator",
        "test_a_text_that_was_shown_whole_and_does_not_fit_is_left_to_the_code",
    ),
    "a rejected key ends at once": ("model", "test_a_rejected_key_ends_at_once_and_is_in_no_text"),
    "nonsense": ("odd_endpoints", "test_what_is_no_answer_ends_in_an_error_of_ours"),
    "a web page": ("odd_endpoints", "test_a_web_page_is_told_as_one_and_asked_for_briefly"),
    "bytes one by one": (
        "odd_endpoints",
        "test_bytes_that_come_one_by_one_do_not_hold_a_call_for_ever",
    ),
    "a reply without end": ("odd_endpoints", "test_a_reply_without_end_is_cut_off"),
    "a redirect": ("odd_endpoints", "test_a_redirect_takes_neither_prompt_nor_key_to_another_host"),
    "a certificate": (
        "odd_endpoints",
        "test_a_certificate_that_nobody_vouches_for_is_told_at_once",
    ),
    "a proxy": ("odd_endpoints", "test_proxies_are_those_of_the_environment"),
}

ENDINGS: dict[str, tuple[str, str]] = {
    "a failure": ("endings", "test_a_failure_of_the_model_keeps_the_work"),
    "a failure after a guess": ("endings", "test_a_failure_gives_the_guess_that_was_made_before"),
    "a budget": ("endings", "test_the_end_of_a_budget_keeps_the_work"),
    "a schema": ("endings", "test_an_answer_that_never_fits_its_schema_is_kept"),
    "a REPL": ("endings", "test_a_repl_that_is_gone_for_good_ends_the_run_with_its_work"),
    "a cache": ("orchestrator", "test_a_cache_that_fails_loses_no_reply"),
    "a batch beyond the budget": (
        "orchestrator",
        "test_a_batch_larger_than_the_budget_makes_exactly_what_fits",
    ),
    "cancellation": (
        "orchestrator",
        "test_cancelling_ends_the_model_call_and_starts_no_other",
    ),
}


def rows() -> Iterator[tuple[str, str, str]]:
    for name, (_, module, test) in OPTIONS.items():
        yield name, module, test
    tables = (VARIANTS, RESPONSE, EVENT, EVENTS, HISTORY, USAGES, PROPERTIES, PROVIDERS, ENDINGS)
    for table in tables:
        for name, (module, test) in table.items():
            yield name, module, test


def functions_of(module: str) -> set[str]:
    tree = ast.parse((HERE / f"test_{module}.py").read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions)}


TESTS = {module: functions_of(module) for module in {module for _, module, _ in rows()}}


@pytest.mark.parametrize(("name", "module", "test"), list(rows()))
def test_what_is_promised_has_its_test(name: str, module: str, test: str) -> None:
    assert test in TESTS[module], f"nothing shows {name!r}"


def test_every_option_is_in_the_table_with_its_default() -> None:
    assert RLMConfig().model_dump() == {name: row[0] for name, row in OPTIONS.items()}


def test_every_field_and_kind_of_event_is_in_a_table() -> None:
    for shown, table in ((RLMResponse, RESPONSE), (RLMEvent, EVENT), (HistoryEntry, HISTORY)):
        assert {field.name for field in fields(shown)} == table.keys()
    assert set(get_args(EventType)) == EVENTS.keys()


def test_each_prompt_variant_has_its_test() -> None:
    assert set(get_args(PromptVariantName)) == VARIANTS.keys()
