//! Projects with tasks and tags, and users with ways to pay: two aggregates, each with a read model.

use annals_sourcing::{Decider, DomainEvent, Handlers};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The stream `project-ID`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum ProjectEvent {
    #[event("ProjectCreated")]
    Created { project: String, title: String },
    #[event("TaskCreated")]
    TaskCreated { project: String, task: String, title: String },
    #[event("TagCreated")]
    TagCreated { project: String, tag: String },
    #[event("TagAssigned")]
    TagAssigned { project: String, task: String, tag: String },
}

#[derive(Clone, Debug)]
pub enum ProjectCommand {
    Create { project: String, title: String },
    AddTask { task: String, title: String },
    AddTag { tag: String },
    AssignTag { task: String, tag: String },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(pub &'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Project {
    pub id: Option<String>,
    pub tasks: BTreeMap<String, BTreeSet<String>>,
    pub tags: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Projects;

impl Decider for Projects {
    type State = Project;
    type Command = ProjectCommand;
    type Event = ProjectEvent;
    type Error = Refusal;

    fn initial(&self) -> Project {
        Project::default()
    }

    fn evolve(&self, state: &mut Project, event: &ProjectEvent) {
        match event {
            ProjectEvent::Created { project, .. } => state.id = Some(project.clone()),
            ProjectEvent::TaskCreated { task, .. } => drop(state.tasks.insert(task.clone(), BTreeSet::new())),
            ProjectEvent::TagCreated { tag, .. } => _ = state.tags.insert(tag.clone()),
            ProjectEvent::TagAssigned { task, tag, .. } => {
                state.tasks.entry(task.clone()).or_default().insert(tag.clone());
            }
        }
    }

    fn decide(&self, state: &Project, command: &ProjectCommand) -> Result<Vec<ProjectEvent>, Refusal> {
        let event = match (state.id.clone(), command.clone()) {
            (None, ProjectCommand::Create { project, title }) => ProjectEvent::Created { project, title },
            (Some(_), ProjectCommand::Create { .. }) => return Err(Refusal("there is such a project")),
            (None, _) => return Err(Refusal("there is no such project")),
            (_, ProjectCommand::AddTask { task, .. }) if state.tasks.contains_key(&task) => {
                return Err(Refusal("there is such a task"));
            }
            (Some(project), ProjectCommand::AddTask { task, title }) => {
                ProjectEvent::TaskCreated { project, task, title }
            }
            (_, ProjectCommand::AddTag { tag }) if state.tags.contains(&tag) => return Ok(vec![]),
            (Some(project), ProjectCommand::AddTag { tag }) => ProjectEvent::TagCreated { project, tag },
            (Some(project), ProjectCommand::AssignTag { task, tag }) => {
                if !state.tags.contains(&tag) {
                    return Err(Refusal("there is no such tag"));
                }
                match state.tasks.get(&task) {
                    None => return Err(Refusal("there is no such task")),
                    Some(tags) if tags.contains(&tag) => return Ok(vec![]),
                    Some(_) => ProjectEvent::TagAssigned { project, task, tag },
                }
            }
        };
        Ok(vec![event])
    }
}

/// Tasks by tag, over all projects.
pub type TaggedTasks = BTreeMap<String, BTreeSet<(String, String)>>;

/// By the types of an enum.
pub fn tagged_tasks() -> Handlers<TaggedTasks> {
    Handlers::new().when::<ProjectEvent>(|tags: &mut TaggedTasks, event, _| {
        match event {
            ProjectEvent::TagCreated { tag, .. } => drop(tags.entry(tag.clone()).or_default()),
            ProjectEvent::TagAssigned { project, task, tag } => {
                tags.entry(tag.clone()).or_default().insert((project.clone(), task.clone()));
            }
            ProjectEvent::Created { .. } | ProjectEvent::TaskCreated { .. } => {}
        }
        Ok(())
    })
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, DomainEvent)]
#[event("UserCreated")]
pub struct UserCreated {
    pub user: String,
    pub name: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, DomainEvent)]
#[event("PaymentMethodAdded")]
pub struct PaymentMethodAdded {
    pub user: String,
    pub method: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, DomainEvent)]
#[event("DefaultPaymentMethodSet")]
pub struct DefaultPaymentMethodSet {
    pub user: String,
    pub method: String,
}

/// The stream `user-ID`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum UserEvent {
    #[event("UserCreated")]
    Created(UserCreated),
    #[event("DeliveryAddressAdded")]
    AddressAdded { user: String, address: String },
    #[event("PaymentMethodAdded")]
    MethodAdded(PaymentMethodAdded),
    #[event("DefaultPaymentMethodSet")]
    DefaultMethodSet(DefaultPaymentMethodSet),
}

#[derive(Clone, Debug)]
pub enum UserCommand {
    Create {
        user: String,
        name: String,
    },
    AddAddress {
        address: String,
    },
    /// The first one is the default.
    AddMethod {
        method: String,
    },
    SetDefaultMethod {
        method: String,
    },
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct User {
    id: Option<String>,
    methods: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Users;

impl Decider for Users {
    type State = User;
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = Refusal;

    fn initial(&self) -> User {
        User::default()
    }

    fn evolve(&self, state: &mut User, event: &UserEvent) {
        match event {
            UserEvent::Created(created) => state.id = Some(created.user.clone()),
            UserEvent::MethodAdded(added) => _ = state.methods.insert(added.method.clone()),
            UserEvent::AddressAdded { .. } | UserEvent::DefaultMethodSet(_) => {}
        }
    }

    fn decide(&self, state: &User, command: &UserCommand) -> Result<Vec<UserEvent>, Refusal> {
        match (state.id.clone(), command.clone()) {
            (None, UserCommand::Create { user, name }) => {
                Ok(vec![UserEvent::Created(UserCreated { user, name })])
            }
            (Some(_), UserCommand::Create { .. }) => Err(Refusal("there is such a user")),
            (None, _) => Err(Refusal("there is no such user")),
            (Some(user), UserCommand::AddAddress { address }) => {
                Ok(vec![UserEvent::AddressAdded { user, address }])
            }
            (Some(_), UserCommand::AddMethod { method }) if state.methods.contains(&method) => Ok(vec![]),
            (Some(user), UserCommand::AddMethod { method }) => {
                let added =
                    UserEvent::MethodAdded(PaymentMethodAdded { user: user.clone(), method: method.clone() });
                let default = UserEvent::DefaultMethodSet(DefaultPaymentMethodSet { user, method });
                Ok(if state.methods.is_empty() { vec![added, default] } else { vec![added] })
            }
            (Some(_), UserCommand::SetDefaultMethod { method }) if !state.methods.contains(&method) => {
                Err(Refusal("the user has no such method"))
            }
            (Some(user), UserCommand::SetDefaultMethod { method }) => {
                Ok(vec![UserEvent::DefaultMethodSet(DefaultPaymentMethodSet { user, method })])
            }
        }
    }
}

/// How a user pays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payment {
    pub name: String,
    pub methods: Vec<String>,
    pub default: Option<String>,
}

/// By user.
pub type Payments = BTreeMap<String, Payment>;

/// Type by type.
pub fn payments() -> Handlers<Payments> {
    Handlers::new()
        .when::<UserCreated>(|users: &mut Payments, created, _| {
            users.insert(created.user.clone(), Payment { name: created.name.clone(), ..Payment::default() });
            Ok(())
        })
        .when::<PaymentMethodAdded>(|users, added, _| {
            users.entry(added.user.clone()).or_default().methods.push(added.method.clone());
            Ok(())
        })
        .when::<DefaultPaymentMethodSet>(|users, set, _| {
            users.entry(set.user.clone()).or_default().default = Some(set.method.clone());
            Ok(())
        })
}
