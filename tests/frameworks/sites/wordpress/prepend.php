<?php
// Runs before each script: WordPress looks for its settings in ABSPATH, and its files are links
// into Debian's folder, whose own settings are not for this site.
define('ABSPATH', getenv('SITE_FOLDER') . '/');
