<!DOCTYPE html><title>Catalog</title><meta name="csrf-token" content="{{ csrf_token() }}">
<p class="user">{{ auth()->check() ? auth()->user()->name : 'guest' }}</p>
<p class="notice">{{ session('notice') }}</p><ul>
@foreach ($items as $item)<li>{{ $item->name }}</li>@endforeach
</ul>
