<?php
// The tables, two users, and what is in the catalog.
$app = require __DIR__ . '/app.php';
$app->make(Illuminate\Contracts\Http\Kernel::class)->bootstrap();

$schema = Illuminate\Support\Facades\Schema::getFacadeRoot();
$schema->create('users', function ($table) {
    $table->id();
    $table->string('name');
    $table->string('password');
    $table->string('api_token');
    $table->rememberToken();
});
$schema->create('items', function ($table) {
    $table->id();
    $table->string('name');
});
foreach (['ann', 'ben'] as $name) {
    $password = Illuminate\Support\Facades\Hash::make("$name-secret");
    User::create(['name' => $name, 'password' => $password, 'api_token' => "token-of-$name"]);
}
foreach (['Chair', 'Table', 'Lamp'] as $name) {
    Item::create(['name' => $name]);
}
