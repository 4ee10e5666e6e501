<!DOCTYPE html><title>Catalog</title><ul>
@foreach ($items as $item)<li>{{ $item->name }}</li>@endforeach
</ul>
