<!DOCTYPE html><title>Login</title><form method="POST" action="/login">
@csrf<input name="name"><input name="password" type="password"></form>
