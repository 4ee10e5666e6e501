<?php
// A small blog: posts with links that have names, a page, a protected post, comments, two users.
require ABSPATH . 'wp-load.php';
update_option('permalink_structure', '/%postname%/');
update_option('comment_previously_approved', '0');
flush_rewrite_rules();
foreach (['one', 'two', 'three'] as $name) {
    $post = wp_insert_post(['post_title' => "Post $name", 'post_name' => "post-$name",
        'post_content' => "<!-- wp:paragraph --><p>The text of $name.</p><!-- /wp:paragraph -->",
        'post_status' => 'publish', 'post_author' => 1]);
    wp_insert_comment(['comment_post_ID' => $post, 'comment_author' => 'Ann',
        'comment_author_email' => 'ann@example.test', 'comment_content' => "First of $name.",
        'comment_approved' => 1]);
    echo "post-$name=$post\n";
}
wp_insert_post(['post_title' => 'Protected', 'post_name' => 'protected', 'post_author' => 1,
    'post_content' => 'The words that are protected.', 'post_status' => 'publish',
    'post_password' => 'open sesame']);
wp_insert_post(['post_type' => 'page', 'post_title' => 'About', 'post_name' => 'about',
    'post_content' => 'About this site.', 'post_status' => 'publish', 'post_author' => 1]);
wp_create_user('reader', 'reader-secret', 'reader@example.test');
