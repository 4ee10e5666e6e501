# A small shop: products that everybody reads, users that log in and edit them by forms. It is one
# file, but has what `rails new` gives an app: load_defaults, an encrypted session, CSRF tokens.
require "rails"
require "action_controller/railtie"
require "active_record/railtie"

class Shop < Rails::Application
  config.root = __dir__
  config.load_defaults "#{Rails::VERSION::MAJOR}.#{Rails::VERSION::MINOR}"
  config.eager_load = true
  config.secret_key_base = "a secret of the shop that is for tests alone " * 2
  config.session_store :cookie_store, key: "_shop_session"
  config.logger = Logger.new($stderr)
  config.log_level = :warn
  config.hosts.clear
  routes.append do
    root to: redirect("/products")
    get "/products/plain" => "plain#index"
    get "/products/prices" => "prices#index"
    resources :products
    resource :session, only: %i[new create destroy]
    get "/me" => "accounts#me"
    get "/reports" => "accounts#reports"
  end
end

Shop.initialize!

ActiveRecord::Schema.verbose = false
ActiveRecord::Schema.define do
  create_table(:products) { |t| t.string :name; t.integer :price; t.timestamps }
end

# The database is named by DATABASE_URL.
class Product < ActiveRecord::Base
  validates :name, presence: true
end

class ApplicationController < ActionController::Base
  helper_method :user
  USERS = { "ann" => "ann-secret", "ben" => "ben-secret", "amy" => "amy-secret" }.freeze

  def user
    session[:user]
  end

  # The tags stand in the layout that `rails new` writes.
  def page(body, tags: true)
    layout = <<~ERB
      <!DOCTYPE html><html><head><title>Shop</title><%= csrf_meta_tags if tags %></head><body>
      <p class="user"><%= user || "guest" %></p><p class="notice"><%= flash[:notice] if user %></p>
      <%= content %></body></html>
    ERB
    content = render_to_string(inline: body, layout: false)
    render inline: layout, layout: false, locals: { content: content, tags: tags }
  end
end

class ProductsController < ApplicationController
  before_action :must_log_in, except: %i[index show]
  LIST = <<~ERB
    <ul><% Product.order(:id).each do |one| %>
      <li><%= one.name %>: <%= one.price %></li>
    <% end %></ul>
  ERB
  FORM = <<~ERB
    <%= form_with(model: @product, local: true) do |form| %>
      <%= form.text_field :name %><%= form.number_field :price %><%= form.submit %>
    <% end %>
  ERB
  # Guests get no token: it would begin a session for each of them.
  def index
    respond_to do |format|
      format.html { page(LIST, tags: user.present?) }
      format.json { render json: Product.order(:id).as_json(only: %i[id name price]) }
    end
  end

  def show
    @product = Product.find(params[:id])
    page("<h1><%= @product.name %></h1>", tags: user.present?)
  end

  def new
    @product = Product.new
    page(FORM)
  end

  def edit
    @product = Product.find(params[:id])
    page(FORM)
  end

  def create
    product = Product.create!(sent)
    redirect_to product, notice: "Made."
  end

  def update
    Product.find(params[:id]).update!(sent)
    redirect_to "/products", notice: "Saved."
  end

  def destroy
    Product.find(params[:id]).destroy!
    redirect_to "/products", notice: "Gone."
  end

  private

  def sent
    params.require(:product).permit(:name, :price)
  end

  def must_log_in
    redirect_to "/session/new" unless user
  end
end

# The layout of `rails new`, unchanged: a token for everybody.
class PlainController < ApplicationController
  def index
    page(ProductsController::LIST)
  end
end

# Pages of users that read the session and do not write to it.
class PricesController < ApplicationController
  before_action { request.session_options[:skip] = true }

  def index
    page(ProductsController::LIST, tags: false)
  end
end

# What is the same for all users of an account.
class AccountsController < ApplicationController
  before_action { request.session_options[:skip] = true }
  before_action { head :unauthorized unless user }
  ACCOUNTS = { "ann" => "acme", "ben" => "globex", "amy" => "acme" }.freeze

  def me
    render json: { account: ACCOUNTS[user] }
  end

  def reports
    render json: { account: ACCOUNTS[user], products: Product.count, first: Product.first.name }
  end
end

class SessionsController < ApplicationController
  def new
    page('<%= form_with(url: "/session", local: true) do |form| %><%= form.text_field :name %>
          <%= form.password_field :password %><% end %>')
  end

  def create
    return head(:unprocessable_entity) unless USERS[params[:name]] == params[:password]

    reset_session
    session[:user] = params[:name]
    redirect_to "/products", notice: "Welcome, #{user}."
  end

  def destroy
    reset_session
    redirect_to "/products"
  end
end

%w[Chair Table Lamp].each { |name| Product.create!(name: name, price: 10) }
