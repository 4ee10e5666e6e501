<?php
// A small catalog: an API and pages that set no cookie, and in the group `web` sessions, forms with
// tokens, a login and messages. The middleware is that of a new app of Laravel 8.

use Illuminate\Cookie\Middleware\AddQueuedCookiesToResponse;
use Illuminate\Cookie\Middleware\EncryptCookies;
use Illuminate\Database\Eloquent\Model;
use Illuminate\Foundation\Http\Middleware as Usual;
use Illuminate\Http\Request;
use Illuminate\Routing\Middleware\SubstituteBindings;
use Illuminate\Session\Middleware\StartSession;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Route;
use Illuminate\View\Middleware\ShareErrorsFromSession;

require '/usr/share/php/Illuminate/autoload.php';

class Settings
{
    public function bootstrap($app)
    {
        $folder = getenv('SITE_FOLDER');
        $app->detectEnvironment(fn () => 'production');
        $providers = ['Auth\AuthServiceProvider', 'Bus\BusServiceProvider',
            'Cache\CacheServiceProvider', 'Cookie\CookieServiceProvider',
            'Database\DatabaseServiceProvider', 'Encryption\EncryptionServiceProvider',
            'Filesystem\FilesystemServiceProvider', 'Hashing\HashServiceProvider',
            'Foundation\Providers\FoundationServiceProvider', 'Session\SessionServiceProvider',
            'Translation\TranslationServiceProvider', 'Validation\ValidationServiceProvider',
            'Pagination\PaginationServiceProvider', 'View\ViewServiceProvider'];
        $app->instance('config', new Illuminate\Config\Repository([
            'app' => ['name' => 'Laravel', 'env' => 'production', 'debug' => false,
                'url' => getenv('SITE_URL'), 'locale' => 'en', 'fallback_locale' => 'en',
                'key' => 'a-key-for-tests-alone-of-32-byte', 'cipher' => 'AES-256-CBC',
                'providers' => array_map(fn ($name) => "Illuminate\\$name", $providers)],
            'auth' => ['defaults' => ['guard' => 'web', 'passwords' => 'users'],
                'guards' => ['web' => ['driver' => 'session', 'provider' => 'users'],
                    'api' => ['driver' => 'token', 'provider' => 'users']],
                'providers' => ['users' => ['driver' => 'eloquent', 'model' => User::class]]],
            'cache' => ['default' => 'array', 'stores' => ['array' => ['driver' => 'array']]],
            'database' => ['default' => 'sqlite', 'connections' => ['sqlite' => [
                'driver' => 'sqlite', 'database' => "$folder/catalog.db"]]],
            'hashing' => ['driver' => 'bcrypt', 'bcrypt' => ['rounds' => 4]],
            'logging' => ['default' => 'errorlog',
                'channels' => ['errorlog' => ['driver' => 'errorlog']]],
            'session' => ['driver' => 'file', 'lifetime' => 120, 'expire_on_close' => false,
                'encrypt' => false, 'files' => "$folder/storage/sessions", 'connection' => null,
                'lottery' => [2, 100], 'cookie' => 'laravel_session', 'path' => '/',
                'domain' => null, 'secure' => null, 'http_only' => true, 'same_site' => 'lax'],
            'view' => ['paths' => [__DIR__ . '/views'], 'compiled' => "$folder/storage/views"],
        ]));
        date_default_timezone_set('UTC');
        mb_internal_encoding('UTF-8');
    }
}

class Kernel extends Illuminate\Foundation\Http\Kernel
{
    protected $bootstrappers = [Settings::class,
        Illuminate\Foundation\Bootstrap\HandleExceptions::class,
        Illuminate\Foundation\Bootstrap\RegisterFacades::class,
        Illuminate\Foundation\Bootstrap\RegisterProviders::class,
        Illuminate\Foundation\Bootstrap\BootProviders::class];
    protected $middleware = [Usual\ValidatePostSize::class, Usual\TrimStrings::class,
        Usual\ConvertEmptyStringsToNull::class];
    protected $middlewareGroups = [
        'web' => [EncryptCookies::class, AddQueuedCookiesToResponse::class, StartSession::class,
            ShareErrorsFromSession::class, Usual\VerifyCsrfToken::class, SubstituteBindings::class],
        'api' => [SubstituteBindings::class],
    ];
    protected $routeMiddleware = ['auth' => Authenticate::class];
}

class Authenticate extends Illuminate\Auth\Middleware\Authenticate
{
    protected function redirectTo($request)
    {
        return $request->expectsJson() ? null : url('/login');
    }
}

class User extends Illuminate\Foundation\Auth\User
{
    protected $guarded = [];
    public $timestamps = false;
}

class Item extends Model
{
    protected $guarded = [];
    public $timestamps = false;
}

function routes()
{
    // As in the API of a shop: everybody reads, who has a token writes.
    Route::middleware('api')->prefix('api')->group(function () {
        Route::get('/catalog', fn () => Item::orderBy('id')->get());
        Route::get('/catalog/{item}', fn (Item $item) => $item);
        Route::middleware('auth:api')->group(function () {
            Route::get('/me', fn (Request $request) => ['name' => $request->user()->name]);
            Route::get('/catalog/of/me', fn (Request $request) => ['of' => $request->user()->name]);
            Route::post('/catalog', fn (Request $request) => Item::create($request->only('name')));
            Route::put('/catalog/{item}', function (Request $request, Item $item) {
                $item->update($request->only('name'));
                return $item;
            });
            Route::delete('/catalog/{item}', fn (Item $item) => ['gone' => $item->delete()]);
        });
    });
    // Pages that are the same for everybody: no session, so no cookie.
    Route::middleware('api')->group(function () {
        Route::get('/catalog', fn () => view('list', ['items' => Item::orderBy('id')->get()]));
    });
    Route::middleware('web')->group(function () {
        Route::get('/login', fn () => view('login'))->name('login');
        Route::post('/login', function (Request $request) {
            $sent = $request->only('name', 'password');
            if (!Auth::attempt($sent, $request->boolean('remember'))) {
                return response('no', 422);
            }
            $request->session()->regenerate();
            return redirect('/catalog/mine')->with('notice', 'Welcome.');
        });
        Route::post('/logout', function (Request $request) {
            Auth::logout();
            $request->session()->invalidate();
            $request->session()->regenerateToken();
            return redirect('/catalog/mine');
        });
        Route::get('/catalog/mine', fn () => view('mine', ['items' => Item::all()]));
        Route::middleware('auth')->group(function () {
            Route::get('/catalog/{item}/edit', fn (Item $item) => view('edit', compact('item')));
            Route::put('/catalog/{item}', function (Request $request, Item $item) {
                $item->update($request->only('name'));
                return redirect('/catalog/mine')->with('notice', 'Saved.');
            });
        });
    });
}

$app = new Illuminate\Foundation\Application(getenv('SITE_FOLDER'));
$app->singleton(Illuminate\Contracts\Http\Kernel::class, Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class,
    Illuminate\Foundation\Exceptions\Handler::class);
$app->booted('routes');
return $app;
