<?php
// A must-use plugin: one visitor of the test comments more than once in 15 seconds.
add_filter('comment_flood_filter', '__return_false', 99);
