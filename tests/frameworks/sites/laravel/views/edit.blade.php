<!DOCTYPE html><title>Edit</title><form method="POST" action="/catalog/{{ $item->id }}">
@csrf @method('PUT')<input name="name" value="{{ $item->name }}"></form>
