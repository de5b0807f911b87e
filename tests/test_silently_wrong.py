"""Everything that once went wrong without a word, one case a row: input, command, right value, and its tests.

A row names the tests that hold it, and each of them is there. Cases of images and folders come first, then those of
machines and people, then those of studies, databases and clusters.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_documentation import commands

HERE = Path(__file__).resolve().parent

READER = "nas/data/test_reader.py"
WHITE = "nas/data/test_white.py"
FOLDERS = "nas/data/test_folders.py"
DATA = "nas/data/test_data.py"
PICTURES = "nas/bundles/test_pictures.py"
DENOISE = "test_train_denoise.py"
FOLDER_COMMANDS = "test_folder_commands.py"
IMPORTANCE = "nas/search/test_importance.py"
COMMANDS = "test_app_cli.py"
LOST_RAY = "nas/engine/test_lost_ray.py"
FAULTS = "nas/engine/test_search_faults.py"
EXECUTOR = "nas/engine/test_session.py"
SEARCHER = "nas/engine/test_searcher.py"
MACHINE = "nas/test_machine.py"
SHOWN = "test_shown.py"
FILES = "nas/test_files.py"
IDENTITY = "studies/store/test_identity.py"
STORAGE = "studies/store/test_storage.py"
POSTGRES = "studies/store/test_postgres.py"
DRIVERS = "studies/store/test_drivers.py"
GUARD = "studies/pages/test_guard.py"
COLLEAGUES = "studies/store/test_colleagues.py"

Row = tuple[str, str, str, dict[str, str]]
"""Input, command, right value, and by file the tests that hold it, with spaces between and without `test_`."""

TABLE: dict[str, list[Row]] = {
    # --- A. Images and folders
    "A1": [
        (
            "16-bit TIFFs in either byte order, and with any sample format, layout and compression",
            "denoise",
            "the values that numpy wrote, and the image that its 8-bit version gives, to 1 % of the mean and 0.5 dB",
            {READER: "every_value_of_a_tiff_comes_back", DENOISE: "an_image_is_restored_as_its_eight_bits_are"},
        ),
        (
            "PNG, PGM and PPM of 8 and 16 bits",
            "train",
            "the values that numpy wrote",
            {READER: "every_value_of_a_png_or_pgm_comes_back few_bits_are_brought_to_eight"},
        ),
        (
            "damaged files of every kind",
            "denoise",
            "one line",
            {
                READER: "damaged_tiffs_are_refused_in_a_line_or_read",
                PICTURES: "damaged_files_are_refused_in_a_line_or_read",
            },
        ),
    ],
    "A2": [
        (
            "12 bits or counts to 600 in 16-bit files, with a white level in the file or given",
            "denoise",
            "what the same image gives in 8 bits, in every command, as study, bundle and ONNX keep the level",
            {
                DENOISE: "an_image_is_restored_as_its_eight_bits_are a_white_level_is_kept_and_used_by_every_command",
                READER: "a_tiff_states_its_white_level significant_bits_of_a_png_state_its_white_level "
                "a_pgm_states_its_white_level packed_bits_state_their_white",
                WHITE: "the_level_of_a_folder_is_what_is_given_or_what_all_files_say a_level_that_cannot_be_is_refused "
                "pages_that_state_different_levels_are_asked_about",
            },
        ),
        (
            "counts to 600 in 16-bit files, and the answer that their largest value is white",
            "search",
            "the largest value of the training images, which is a number in the study, the bundle and every later "
            "command; what lies above it in other splits is refused, not cut off",
            {
                DENOISE: "the_largest_value_of_the_data_is_a_white_level_in_every_command "
                "a_search_keeps_the_white_level_that_it_found",
                WHITE: "the_largest_value_of_the_training_images_can_be_white "
                "images_for_training_alone_decide_which_value_is_white "
                "data_without_a_largest_value_or_with_a_scale_of_its_own_has_no_level",
                "nas/test_settings.py": "the_data_s_white_level_is_the_number_that_was_found_when_the_study_was_made",
            },
        ),
        (
            "the same without a white level",
            "search",
            "one line that asks for it, before anything is made",
            {
                DENOISE: "data_of_unknown_white_is_asked_for_before_anything_is_made "
                "an_image_that_could_be_misread_is_one_line",
                PICTURES: "a_white_level_that_nobody_knows_is_asked_for",
            },
        ),
        (
            "photographs of 16 bits",
            "train",
            "all 16 bits",
            {
                DATA: "sixteen_bits_become_floats",
                "nas/data/test_photographs.py": "one_colour_photograph_makes_all_colour_and_16_bits_are_kept",
            },
        ),
    ],
    "A3": [
        (
            "images of 140 to 200 pixels, shrunk to 64 for training",
            "denoise",
            "the class that the head gives at 64x64, as in evaluate",
            {
                FOLDER_COMMANDS: "denoise_names_a_class_as_training_and_evaluate_do small_images_are_named_too "
                "a_training_keeps_tracks_together_and_says_how_images_were_made_ready"
            },
        ),
        (
            "an image on its side with EXIF orientation 6",
            "denoise",
            "the class of the upright image, and pixels as they are stored",
            {
                FOLDER_COMMANDS: "a_phone_s_image_has_one_class_and_keeps_its_pixels",
                FOLDERS: "training_sees_a_phone_s_image_as_people_do",
                READER: "orientation_is_told_and_pixels_stay_as_they_are_stored",
            },
        ),
    ],
    "A4": [
        (
            "stacks of ImageJ, OME and tifffile, with a directory a page or one for all",
            "denoise",
            "every page restored, and the axes kept",
            {
                READER: "every_page_of_a_stack_is_read a_stack_that_lost_pages_is_refused "
                "a_list_of_pages_that_is_cut_off_is_refused",
                PICTURES: "a_stack_keeps_its_pages_and_axes pages_of_several_sizes_are_all_restored",
            },
        ),
        (
            "folders of stacks",
            "search",
            "every page is an image, and those of a stack lie in one split",
            {WHITE: "pages_are_images_and_those_of_a_stack_lie_in_one_split"},
        ),
    ],
    "A5": [
        (
            "MinIsWhite, palettes, few bits, premultiplied and transparent pixels",
            "denoise",
            "each value as it is seen, written back as it was stored; black where a pixel is fully transparent",
            {
                READER: "inverted_values_are_turned_round_and_back colours_of_a_palette few_bits_are_brought_to_eight "
                "premultiplied_colours_are_divided_and_multiplied transparent_pixels_are_black_and_stay_as_they_are"
            },
        ),
        (
            "a near-infrared band, CMYK, CIELAB, masks, NaN, GDAL_NODATA",
            "denoise",
            "one line",
            {
                READER: "channels_that_could_be_misread_are_refused values_that_are_no_numbers_are_refused "
                "pixels_without_data_are_refused smaller_copies_of_an_image_are_no_pages",
                DENOISE: "an_image_that_could_be_misread_is_one_line",
            },
        ),
    ],
    "A6": [
        (
            "copies in .ipynb_checkpoints, thumbnails of storage boxes, archives of a Mac",
            "search",
            "the splits that there are without them, and one line",
            {FOLDERS: "what_is_left_out_changes_nothing_and_is_told_in_one_line photographs_leave_out_the_same"},
        ),
        (
            "images that are equal, or equal but for size",
            "search",
            "one split for equal images, and one line that counts them",
            {
                FOLDERS: "equal_images_are_in_one_split_and_counted resized_copies_in_a_folder_stay_in_one_split "
                "images_that_are_equal_but_for_size_are_found own_test_images_are_not_trained_on "
                "equal_photographs_are_in_one_split",
                DATA: "equal_images_of_a_published_set_are_told_and_its_test_split_is_kept",
            },
        ),
        (
            "frames of a track, slices of a patient, tiles of a slide",
            "train",
            "one split for each group of --group-by",
            {
                FOLDERS: "frames_of_a_track_are_in_one_split patients_with_images_of_several_classes_are_in_one_split "
                "tiles_of_a_slide_are_in_one_split_of_photographs folders_that_divide_a_group_are_refused",
                DATA: "frames_of_a_track_of_gtsrb_stay_in_one_split",
                FOLDER_COMMANDS: "a_training_keeps_tracks_together_and_says_how_images_were_made_ready",
            },
        ),
    ],
    "A7": [
        (
            "folders of bmp, webp, pgm, ppm and jfif, with linked folders",
            "denoise",
            "every image is restored, and one line counts what is left out",
            {
                FOLDERS: "every_kind_of_image_file_is_read "
                "links_to_folders_are_followed_and_no_folder_is_entered_twice",
                FOLDER_COMMANDS: "denoise_says_what_it_leaves_out_and_leaves_its_own_results_alone",
                PICTURES: "other_formats_are_restored_without_loss",
            },
        ),
        (
            "photographs or classes in folders called train, car and plane",
            "search",
            "all of them, since train is a split folder only where nothing else stands beside it",
            {
                FOLDERS: "photographs_sorted_into_train_and_other_folders_are_all_used "
                "train_may_be_a_class_beside_others loose_photographs_beside_train_make_it_a_folder_as_any"
            },
        ),
    ],
    "A8": [
        (
            "files with pixel size, ImageJ and OME descriptions, GeoTIFF tags, gAMA, text, EXIF and GPS",
            "denoise",
            "the same in the restored file",
            {
                PICTURES: "a_png_keeps_all_of_its_chunks a_tiff_keeps_its_tags a_stack_keeps_its_pages_and_axes "
                "a_jpeg_keeps_what_surrounds_its_pixels exif_that_another_program_wrote_is_kept "
                "each_page_of_a_tiff_keeps_what_it_says_of_itself a_bmp_keeps_its_alpha"
            },
        ),
        (
            "makers' notes and pyramids in a TIFF, and images behind the first one of a JPEG",
            "denoise",
            "the line of the restored file says what it lacks",
            {
                DENOISE: "what_a_restored_file_lacks_is_told",
                PICTURES: "a_tiff_keeps_exif_and_place_and_says_what_it_loses "
                "images_behind_the_first_one_of_a_jpeg_are_told_as_lost",
            },
        ),
    ],
    "A9": [
        (
            "made-up studies with known effects, and with noise alone",
            "report",
            "the known shares within their intervals, alike for every type of choice; nothing stands out of noise",
            {
                IMPORTANCE: "known_shares_are_found_and_nothing_else_stands_out intervals_hold_the_truth "
                "a_choice_is_worth_the_same_whatever_its_type of_noise_nothing_stands_out "
                "where_nothing_can_be_said_nothing_is in_short_studies_what_decides_nothing_does_not_stand_out",
                "studies/pages/test_report.py": "importances_of_few_trials_are_not_guessed",
            },
        ),
    ],
    "A10": [
        (
            "one icon of 10x10 pixels among images of 40x40",
            "search",
            "named and left out; a smaller image that sets the size for all is named",
            {FOLDERS: "an_icon_is_named_and_left_out the_image_that_sets_the_size_is_named"},
        ),
        (
            "float32, int16 and uint32",
            "denoise",
            "restored as 8 bits are, in their own type",
            {
                DENOISE: "an_image_is_restored_as_its_eight_bits_are",
                PICTURES: "a_tiff_keeps_its_type_and_byte_order",
            },
        ),
        (
            "a bundle with int8, and a validation set of fewer images than calibrate it",
            "export",
            "each image calibrates once",
            {FOLDER_COMMANDS: "each_image_calibrates_an_int8_program_once"},
        ),
        (
            "a test split that is judged under several draws of noise",
            "evaluate",
            "the confusion matrix adds up to the images",
            {COMMANDS: "a_bundle_evaluates_to_what_the_study_measured"},
        ),
        (
            "denoise d --to d/out, twice",
            "denoise",
            "its own results are no input",
            {FOLDER_COMMANDS: "denoise_says_what_it_leaves_out_and_leaves_its_own_results_alone"},
        ),
        (
            "a folder of results with pictures of evidence, and stacks of more pages than a picture has",
            "denoise",
            "the images alone, and one line that counts the pictures, which say which pages they show",
            {
                "studies/commands/test_explain.py": "the_pictures_are_no_images_of_a_folder "
                "a_picture_of_some_pages_says_which",
                FOLDERS: "what_is_left_out_changes_nothing_and_is_told_in_one_line",
            },
        ),
    ],
    # --- B. Machines and people
    "B1": [
        (
            "ONNX Runtime 1.32, whose telemetry is on",
            "export",
            "no socket, and no file but the bundle",
            {
                "nas/bundles/test_no_telemetry.py": "export_and_use_leave_nothing_behind "
                "whatever_imports_it_has_switched_it_off_before"
            },
        ),
        (
            "a whole search, export and denoising",
            "search",
            "no look-up of a host, and no file outside the folders that were named",
            {
                "test_private.py": "no_host_is_looked_up_and_no_file_is_written_elsewhere "
                "a_closed_network_is_asked_for_nothing"
            },
        ),
    ],
    "B2": [
        (
            "another program that takes the memory",
            "search",
            "all trials, with fewer workers at a time",
            {
                LOST_RAY: "a_search_beside_a_program_that_takes_the_memory_ends_with_all_trials "
                "short_memory_halves_the_number_at_a_time memory_that_stays_short_ends_the_run_in_one_line"
            },
        ),
        (
            "a raylet, a GCS or another process of Ray that is killed",
            "confirm",
            "Ray is started again once, and the work ends as it would have",
            {
                LOST_RAY: "a_search_and_a_confirmation_whose_ray_is_killed_go_on a_lost_ray_is_started_again_once "
                "a_confirmation_whose_ray_is_killed_before_its_first_run_goes_on a_process_that_ended_is_seen "
                "a_search_whose_ray_is_killed_before_its_first_trial_goes_on",
                "nas/engine/test_guardian.py": "the_parent_ends_as_the_child_and_begins_again_once_after_ray",
                "benchmarks/test_chaos.py": "a_round_of_kills_leaves_no_trace",
            },
        ),
        (
            "a machine too busy for Ray, or without room for its files",
            "search",
            "one line",
            {
                LOST_RAY: "ray_that_does_not_start_is_tried_twice a_place_for_ray_that_cannot_be_written "
                "no_room_for_ray_s_files_is_one_line data_that_does_not_fit_is_one_line",
                FAULTS: "a_full_disk_ends_the_search_which_goes_on_later",
            },
        ),
        (
            "a full disk",
            "train",
            "one line, and the same command goes on later",
            {"test_full_disk.py": "a_training_without_room_is_one_line_and_goes_on"},
        ),
    ],
    "B3": [
        (
            "a link, a device, a pipe and a file with a mode of its own as the target",
            "studies to-csv",
            "written through, with the link, the device and the mode as before, or one line",
            {
                COMMANDS: "results_are_written_through_what_is_there",
                FILES: "a_file_keeps_its_mode a_link_stays_and_its_file_is_replaced a_device_is_written_to "
                "a_pipe_is_written_to_when_somebody_reads_it",
            },
        ),
        (
            "a place for a picture that cannot be written",
            "evaluate",
            "one line before anything is measured",
            {
                "studies/commands/test_noise_command.py": "a_picture_that_cannot_be_is_refused_first",
                FILES: "a_place_is_tried_and_left_as_it_is",
            },
        ),
    ],
    "B4": [
        (
            "classes with a no-break space or a zero-width non-joiner in their names",
            "train",
            "a bundle with these classes",
            {SHOWN: "class_names_of_any_language_are_read a_training_on_such_classes_ends_with_a_bundle"},
        ),
        (
            "classes with control characters in their names",
            "search",
            "one line before any training",
            {SHOWN: "class_names_that_no_bundle_may_have_are_refused_before_training"},
        ),
    ],
    "B5": [
        (
            "a study that is renamed in the dashboard",
            "dashboard",
            "its records and files follow it",
            {IDENTITY: "records_and_files_follow_a_renamed_study the_doctor_finds_what_a_deleted_study_left"},
        ),
        (
            "a study that a search works on, deleted or renamed in the dashboard",
            "dashboard",
            "refused",
            {
                GUARD: "a_study_that_is_worked_on_is_neither_renamed_nor_deleted",
                DRIVERS: "a_study_with_a_live_driver_is_not_deleted_by_optuna_either",
            },
        ),
        (
            "requests of other sites, with another Host or Origin, and for pictures",
            "dashboard",
            "403, and no header that lets other origins read",
            {GUARD: "only_its_own_pages_may_ask"},
        ),
        (
            "a connection that sends nothing, and an empty --host",
            "dashboard",
            "nobody waits; one line",
            {
                GUARD: "a_connection_that_sends_nothing_keeps_nobody_waiting",
                "test_wrong_values.py": "a_wrong_value_is_one_line_and_exit_code_2",
            },
        ),
    ],
    "B6": [
        (
            "a database that is deleted or replaced under a search",
            "search",
            "one line that says so, and not that it is complete",
            {
                FAULTS: "a_database_that_is_deleted_under_a_search_ends_it "
                "a_server_s_database_that_is_replaced_under_a_search_ends_it "
                "a_study_that_plain_optuna_deletes_ends_its_search",
                STORAGE: "a_file_that_is_deleted_or_replaced_under_an_open_storage",
                POSTGRES: "a_database_that_is_deleted_or_replaced_under_a_driver",
            },
        ),
    ],
    "B7": [
        (
            "ONNX programs of strangers: other operators, outside tensors, loops, wrong sizes, answers of NaN",
            "evaluate",
            "one line",
            {
                "nas/bundles/test_bundle_fuzz.py": "a_program_that_is_no_bundle_s strange_bundles "
                "a_program_that_fails_or_returns_other_sizes_is_one_line every_operator_of_our_programs_is_allowed "
                "answers_that_are_no_numbers_become_neither_image_nor_class"
            },
        ),
        (
            "a database of a stranger that names code to import, and texts with markup",
            "report",
            "no import without the user's word, and every text escaped",
            {
                "search_spaces/test_own_space.py": "a_stored_study_imports_no_code_that_the_user_did_not_name "
                "a_name_that_is_not_the_users_own_imports_nothing",
                "studies/pages/test_strange_study.py": "every_text_is_escaped "
                "a_configuration_of_other_types_is_refused_in_one_line",
                "studies/reading/test_strange_records.py": "a_value_of_another_type_is_one_line_or_right",
            },
        ),
    ],
    "B8": [
        (
            "names of files and classes with control characters and markup",
            "studies to-csv",
            "visible escapes, and markup as text",
            {
                SHOWN: "names_of_files_are_visible_in_messages brackets_in_class_names_are_no_markup",
                "nas/test_words.py": "no_terminal_obeys_what_is_shown",
            },
        ),
        (
            "a name that stdout cannot encode",
            "studies to-csv",
            "its escape, and the rest as it is",
            {SHOWN: "a_terminal_that_cannot_write_a_name_gets_its_escape"},
        ),
    ],
    "B9": [
        (
            "wrong values by rule for every option and argument of every command",
            "search",
            "one line, exit code 2, nothing changed",
            {
                "test_wrong_values.py": "a_wrong_value_is_one_line_and_exit_code_2 "
                "a_call_of_another_shape_is_one_line_and_exit_code_2",
                "test_wrong_calls.py": "one_line_exit_2_and_nothing_changed",
            },
        ),
        (
            "figures that are NaN or infinite",
            "best",
            "null in --json",
            {SHOWN: "json_has_null_for_what_is_no_number"},
        ),
    ],
    "B10": [
        (
            "what killed exports, trainings and searches leave behind",
            "export",
            "the next one begins, and clears it away",
            {
                FILES: "leftovers_of_processes_that_were_killed_are_deleted",
                EXECUTOR: "scratch_folders_of_killed_processes_are_deleted "
                "scratch_folders_without_a_lock_are_deleted_when_they_are_old",
                "nas/training/test_fit.py": "a_folder_of_which_only_the_lock_was_made_is_empty",
                DENOISE: "a_training_that_was_killed_around_its_bundle_is_finished_by_the_same_command",
            },
        ),
        (
            "URLs with a password that are mistyped, or with an @ in it",
            "studies list",
            "one line without the password",
            {
                STORAGE: "a_url_that_leads_nowhere passwords_are_masked_wherever_they_stand",
                "test_wrong_calls.py": "a_password_is_never_shown",
            },
        ),
        (
            "a study in a folder that cannot be written",
            "studies show",
            "it is read",
            {COLLEAGUES: "a_study_in_a_folder_that_cannot_be_written_is_read a_study_that_its_owner_writes_to_is_read"},
        ),
    ],
    # --- C. Studies, databases, clusters
    "C1": [
        (
            "a study that plain Optuna deletes, and another one with its id or name",
            "studies delete",
            "no records under another name, and a person's own study is not deleted",
            {IDENTITY: "records_are_of_their_study_alone a_driver_of_a_deleted_study_says_so_and_writes_nothing"},
        ),
        (
            "one database by another role, and two schemas of one server",
            "export",
            "one folder for the one, and a refusal for the other",
            {
                IDENTITY: "one_database_is_one_whatever_its_url_and_two_schemas_are_two "
                "a_copy_of_a_database_beside_it_does_not_get_its_folder"
            },
        ),
        (
            "databases of other programs, and backends that are not supported",
            "search",
            "one line, and the database as it was",
            {
                IDENTITY: "a_database_of_another_program_is_refused_and_stays_as_it_is "
                "databases_that_are_not_supported_are_refused_before_anything_is_made"
            },
        ),
    ],
    "C2": [
        (
            "an enqueued value that is no choice, and a space whose decode refuses candidates",
            "search",
            "the trial FAILs with the reason, and the search goes on",
            {
                SEARCHER: "a_trial_that_is_no_candidate_fails_and_the_search_goes_on "
                "a_space_that_refuses_most_candidates_is_asked_for_others a_space_that_fails_always_stops_the_search"
            },
        ),
    ],
    "C3": [
        (
            "an own network with an error, which is mended later",
            "search",
            "it stops after six failures in a row with their reason; the next one trains what failed",
            {
                FAULTS: "a_storm_of_failures_stops_the_search_which_goes_on_when_it_is_mended",
                SEARCHER: "a_search_gives_up_when_trials_fail_in_a_row_for_one_reason "
                "failures_of_earlier_searches_count_for_nothing",
            },
        ),
        (
            "memory that is short",
            "search",
            "memory is named, and no candidate is burnt",
            {LOST_RAY: "what_ray_says_of_memory short_memory_halves_the_number_at_a_time"},
        ),
        (
            "random.py and others in the working folder",
            "search",
            "workers find Python's own modules",
            {
                EXECUTOR: "a_file_of_the_working_folder_hides_no_module_from_workers "
                "places_of_the_driver_s_modules_come_last"
            },
        ),
    ],
    "C4": [
        (
            "SIGTERM",
            "confirm",
            "as Ctrl-C, in search, confirm and train",
            {
                COMMANDS: "the_end_that_a_batch_system_asks_for_is_a_ctrl_c",
                EXECUTOR: "a_signal_stops_a_run_cleanly_though_ray_wants_it",
                "nas/engine/test_guardian.py": "a_signal_is_one_signal_whoever_gets_it",
            },
        ),
    ],
    "C5": [
        (
            "trials that a person fails, prunes or completes while they run and between searches",
            "search",
            "Optuna and the records tell the person's truth",
            {
                "studies/store/test_by_hand.py": "the_person_s_state_stands a_reader_tells_it_while_the_search_runs "
                "a_trial_that_was_never_started_reaches_no_front values_that_are_no_numbers_reach_no_front"
            },
        ),
    ],
    "C6": [
        (
            "PostgreSQL without rights, read-only, in another encoding, with tables or studies that are gone",
            "search",
            "one line",
            {
                POSTGRES: "a_role_without_rights_on_the_schema a_role_that_may_only_read a_session_that_may_only_read "
                "a_database_of_another_encoding a_schema_that_is_not_there tables_that_another_program_deleted",
                FAULTS: "a_study_that_plain_optuna_deletes_ends_its_search",
            },
        ),
        (
            "a lock that a pooled session keeps",
            "search",
            "a wait says for what, and locks end with their transaction",
            {
                POSTGRES: "a_lock_that_a_session_keeps_stops_no_command_that_makes_no_tables "
                "whoever_waits_for_tables_says_so_and_not_for_ever no_lock_outlives_its_transaction"
            },
        ),
        (
            "a lease that a clock put hours ahead",
            "search",
            "it holds nothing up",
            {DRIVERS: "a_lease_that_a_clock_put_hours_ahead_holds_nothing_up"},
        ),
    ],
    "C7": [
        (
            "affinity and quotas of containers, down to half a processor",
            "doctor",
            "as many trials at a time as there are whole processors, at least one, in doctor as in a search",
            {
                MACHINE: "control_groups_allow_so_many_processors an_affinity_is_that_of_the_process "
                "a_process_has_whole_processors_and_at_least_one",
                EXECUTOR: "ray_gets_what_the_process_may_use",
                COMMANDS: "doctor_says_what_a_search_may_use",
            },
        ),
    ],
    "C8": [
        (
            "weights under a umask that lets others read, and a study in a read-only folder",
            "export",
            "colleagues can read and export",
            {
                COLLEAGUES: "files_have_the_rights_that_the_umask_gives "
                "a_study_in_a_folder_that_cannot_be_written_is_read "
                "a_database_of_an_older_version_that_cannot_be_written_says_what_to_do"
            },
        ),
    ],
    "C9": [
        (
            "--address auto with a cluster that is gone",
            "search",
            "one line within seconds",
            {EXECUTOR: "auto_finds_the_cluster_and_says_when_it_is_gone a_cluster_that_is_not_there"},
        ),
        (
            "TMPDIR, and /tmp that cannot be written",
            "doctor",
            "TMPDIR is used where it can be; else one line, and doctor says so",
            {
                MACHINE: "ray_s_files_go_where_tmpdir_says_if_they_can",
                COMMANDS: "doctor_says_what_a_search_may_use",
            },
        ),
        (
            "an own space whose code has changed",
            "export",
            "one line with both fingerprints",
            {
                "studies/reading/test_space.py": "a_study_is_not_used_with_other_code",
                "search_spaces/test_code.py": "the_fingerprint_changes_with_what_the_code_does",
            },
        ),
        (
            "SQLite on a disk of the network",
            "search",
            "one line",
            {"studies/store/test_disks.py": "sqlite_is_refused_on_a_disk_of_the_network the_file_system_of_a_path"},
        ),
    ],
}


def functions(file: str) -> set[str]:
    """The names of the functions of a file of tests."""
    tree = ast.parse((HERE / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_is_there() -> None:
    assert list(TABLE) == [
        f"{part}{number}" for part, last in (("A", 10), ("B", 10), ("C", 9)) for number in range(1, last + 1)
    ]


@pytest.mark.parametrize("row", TABLE)
def test_a_row_is_held_by_tests_that_are_there(row: str) -> None:
    assert TABLE[row]
    for given, command, right, held in TABLE[row]:
        assert given
        assert right
        assert command in {" ".join(path) for path, _ in commands()}
        assert held
        for file, names in held.items():
            missing = {f"test_{name}" for name in re.split(r"\s+", names)} - functions(file)
            assert not missing, f"{row}: {file} has no {', '.join(sorted(missing))}"
